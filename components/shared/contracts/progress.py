"""Progress bars of long loops, readable on a terminal and in a log."""

import sys
from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")

# In a log file (KFP's pod log) every refresh is a new line: one every few seconds is enough.
_LOG_INTERVAL_SECONDS = 10.0


def progress(
    items: Iterable[T],
    description: str,
    *,
    total: int | None = None,
    size: Callable[[T], int] | None = None,
    quiet: bool = False,
) -> Generator[T, None, None]:
    """Iterate with a progress bar (count, rate, remaining time) on stderr.

    Where stderr is not a terminal, a line is written every 10 s. `total` counts items, or with
    `size` what that returns of each.
    """
    interval = 0.1 if sys.stderr.isatty() else _LOG_INTERVAL_SECONDS
    bar = tqdm(
        items if size is None else None,
        desc=description,
        total=total,
        disable=quiet,
        mininterval=interval,
        ascii=not sys.stderr.isatty(),
    )
    if size is None:
        yield from bar
        return

    with bar:
        for item in items:
            yield item
            bar.update(size(item))

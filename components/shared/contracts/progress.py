"""Progress bars of long loops, readable on a terminal and in a log."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")

# In a log file (KFP's pod log) every refresh is a new line: one every few seconds is enough.
_LOG_INTERVAL_SECONDS = 10.0


def progress(
    items: Iterable[T], description: str, *, total: int | None = None, quiet: bool = False
) -> Iterator[T]:
    """Iterate with a progress bar (count, rate, remaining time) on stderr.

    Where stderr is not a terminal, a line is written every 10 s.
    """
    interval = 0.1 if sys.stderr.isatty() else _LOG_INTERVAL_SECONDS
    bar = tqdm(
        items,
        desc=description,
        total=total,
        disable=quiet,
        mininterval=interval,
        ascii=not sys.stderr.isatty(),
    )
    yield from bar

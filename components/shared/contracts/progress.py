"""How far is a long loop, and when will it end?"""

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
    """Iterate with a progress bar (count, rate, ETA) on stderr; one line every 10 s where stderr is
    not a terminal.
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

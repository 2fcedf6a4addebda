"""How are many items worked on by threads, in order and with bounded memory?"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")

_AHEAD_PER_WORKER = 4


def ordered_map(
    function: Callable[[A], B], items: Iterable[A], *, n_workers: int = 0
) -> Iterator[B]:
    """function(item) of every item, in order, by threads (Pillow decodes and resizes without the
    GIL).

    Only a few items a worker are read ahead. `n_workers` 0: one per core this process may use.
    """
    n_workers = n_workers or len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(n_workers) as pool:
        waiting: deque[Future[B]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > _AHEAD_PER_WORKER * n_workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:  # after an error, do not work through what was read ahead
                future.cancel()

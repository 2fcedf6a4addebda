"""Map over many items by threads, in order and with bounded memory.

`Executor.map(buffersize=...)` of Python 3.14 will replace it; earlier, `map` reads all items at
once.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from components.shared.contracts.machine import n_usable_cores

A = TypeVar("A")
B = TypeVar("B")

_AHEAD_PER_WORKER = 4


def ordered_map(
    function: Callable[[A], B], items: Iterable[A], *, n_workers: int = 0
) -> Iterator[B]:
    """Yield function(item) of every item, in order; only a few items per worker are read ahead.

    Threads suffice, because Pillow decodes and resizes without the GIL.

    Args:
        function: called in a thread.
        items: read as results are consumed.
        n_workers: threads; 0 means one per core that this process may use.
    """
    n_workers = n_workers or n_usable_cores()
    with ThreadPoolExecutor(n_workers) as pool:
        pending: deque[Future[B]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > _AHEAD_PER_WORKER * n_workers:
                    yield pending.popleft().result()

            while pending:
                yield pending.popleft().result()
        finally:
            # After an error, items that were read ahead are not processed.
            for future in pending:
                future.cancel()

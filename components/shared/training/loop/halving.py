"""Work in parts that become smaller where memory runs out, for all that exchanges nothing."""

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from components.shared.contracts.errors import TransientError
from components.shared.contracts.listing import say
from components.shared.training.loop.distributed import World, is_out_of_memory

T = TypeVar("T")
Positions = npt.NDArray[np.int64]

# Part of the GPU's memory that a probe leaves free, for what differs between steps: the number of
# masked patches, the allocator's fragments, libraries that allocate for themselves.
_HEAD_ROOM = 0.05
# A larger part must be faster by this factor to be worth its memory, and no part has more samples.
_WORTHWHILE, _MOST = 1.05, 4096


class PartSize:
    """How many samples are worked on at a time.

    Halved where memory runs out. With `search`, doubled before that, until memory or throughput
    ends; what is computed then differs by rounding from run to run.
    """

    def __init__(self, size: int, *, search: bool = False) -> None:
        self.size, self.searching = size, search
        self._best_rate = 0.0

    def of(self, n_left: int) -> int:
        """Return how many of `n_left` samples to take next; parts are about equally large."""
        if self.searching or not n_left:
            return min(self.size, n_left)
        n_parts = -(-n_left // self.size)
        return -(-n_left // n_parts)

    def fitted(self, n: int, seconds: float) -> None:
        """Note that `n` samples took `seconds`."""
        if not self.searching or n < self.size:
            return

        rate = n / max(seconds, 1e-9)
        if rate < _WORTHWHILE * self._best_rate:
            self.size, self.searching = max(1, self.size // 2), False
        elif self.size >= _MOST:
            self.searching = False
        else:
            self._best_rate = max(rate, self._best_rate)
            self.size *= 2

    def failed(self, n: int) -> None:
        """Halve: `n` samples do not fit. Raises TransientError for a single one."""
        if n <= 1:
            raise TransientError("out of memory with one image; use a smaller backbone or image")
        self.size, self.searching = (n + 1) // 2, False


def in_parts(
    function: Callable[[Positions], T],
    rows: Positions,
    size: PartSize,
    world: World,
    expect: Callable[[Positions], None] | None = None,
) -> Iterator[T]:
    """Yield `function` of all rows in order, a part at a time; a part that does not fit is halved.

    A rank without rows still calls it once: the result says what shape others have.

    Args:
        function: Of rows (n,); it must not communicate, because ranks may differ in their parts.
        rows: (N,) all rows.
        size: How many are taken at a time; it remembers what fitted.
        world: The ranks; the launcher is told of every part.
        expect: Told which rows come next, before each part.

    Raises:
        TransientError: a single row does not fit.
    """
    done, first = 0, True
    while first or done < len(rows):
        world.record_progress()
        part = rows[done : done + size.of(len(rows) - done)]
        ends = done + len(part)
        if expect is not None:
            expect(rows[ends : ends + size.of(len(rows) - ends)])

        started = _now(world, size)
        try:
            result = function(part)
            size.fitted(len(part), _now(world, size) - started)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            result = None

        # Outside of `except`, whose error holds the tensors of the pass that failed.
        if result is None:
            size.failed(len(part))
            release(world)
            say(f"out of memory: {size.size} images at a time from here on")
            continue

        done, first = ends, False
        yield result


def head_room(device: torch.device) -> torch.Tensor:
    """Return memory that a probe holds while it runs, so that as much is left in other steps.

    (n,) uint8: 5 % of what this process may use of a GPU's memory; empty on a CPU, whose memory
    nothing limits but the kernel.
    """
    return torch.empty(int(_HEAD_ROOM * _total_bytes(device)), dtype=torch.uint8, device=device)


def release(world: World) -> None:
    """Give memory back that the GPU's allocator holds in pieces of other sizes."""
    if world.device.type == "cuda":
        torch.cuda.empty_cache()


def _total_bytes(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    total = torch.cuda.get_device_properties(device).total_memory
    return int(total * torch.cuda.get_per_process_memory_fraction(device))


def _now(world: World, size: PartSize) -> float:
    """Return the time in seconds; while a size is sought, after the GPU has done its work."""
    if size.searching and world.device.type == "cuda":
        torch.cuda.synchronize(world.device)
    return time.perf_counter()

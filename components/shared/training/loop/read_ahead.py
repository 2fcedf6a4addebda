"""Stored images of the next batch, read by a thread while the present one computes.

Which samples a step needs is a function of the step, so that reading ahead changes no number. Two
buffers bound the memory: one that is in use, and one that is being filled. Why not torch's
DataLoader: its workers are processes that would each map the data set and send every batch through
shared memory, and it cannot be asked for a part of a batch after memory ran out.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import torch

Positions = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]


@dataclass(eq=False)
class _Buffer:
    """Images on their way to the device.

    Attributes:
        pixels: (capacity, S, S, 3) uint8; page-locked where the device is a GPU.
        positions: (n,) what its first n images are.
        filled: Done when they have been read, or has the error of the reading.
        copied: Reached when the GPU has its copy; None on a CPU.
    """

    pixels: torch.Tensor
    positions: Positions = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    filled: "Future[None]" = field(default_factory=Future)
    copied: torch.cuda.Event | None = None


class ReadAhead:
    """Stored images on a device; those that are expected are read beforehand."""

    def __init__(
        self, read: Callable[[Positions, Pixels], object], image_size: int, device: torch.device
    ) -> None:
        """Nothing is read and no thread started yet.

        Args:
            read: Reads the images at positions (n,) into an array (n, S, S, 3).
            image_size: S, in pixels.
            device: Device of the results.
        """
        self._read, self._image_size, self._device = read, image_size, device
        self._in_use: _Buffer | None = None
        # Its images were asked for already, where `_awaited` is false: it may be filled anew.
        self._expected: _Buffer | None = None
        self._awaited = False
        self._next: Positions | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the thread, after what it is reading; give the buffers back."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._in_use = self._expected = self._next = None

    def expect(self, positions: Positions) -> None:
        """Read the images at `positions` (n,), without repetition, as soon as a buffer is free.

        It is when the images that were expected before have been asked for.
        """
        if len(positions) and not self._held(positions):
            self._next = positions
            if not self._awaited:
                self._read_next()

    def images(self, positions: Positions) -> torch.Tensor:
        """Return the images at `positions` (n,): (n, S, S, 3) uint8 on the device.

        They are ready where they, or a run of positions that they are a part of, were expected;
        else they are read now. On a CPU the result is a view of a buffer, valid until other images
        are asked for. An error of the reading is raised here.
        """
        held = self._held(positions)
        if not held:
            self._in_use = self._begin(self._in_use, positions)
        elif held[0] is self._expected:
            self._in_use, self._expected = self._expected, self._in_use
            self._awaited = False
        # Also where something else came than what was expected.
        if self._next is not None and (not held or not self._awaited):
            self._read_next()

        buffer, start = held or (self._in_use, 0)
        assert buffer is not None
        try:
            buffer.filled.result()
        except BaseException:
            self._in_use = None
            raise

        pixels = buffer.pixels[start : start + len(positions)]
        if buffer.copied is None:
            return pixels

        on_device = pixels.to(self._device, non_blocking=True)
        buffer.copied.record()
        return on_device

    def _read_next(self) -> None:
        assert self._next is not None
        self._expected = self._begin(self._expected, self._next)
        self._awaited, self._next = True, None

    def _held(self, positions: Positions) -> tuple[_Buffer, int] | None:
        """Return the buffer with these images, in this order, and the place of the first one."""
        if not len(positions):
            return None
        for buffer in (self._in_use, self._expected):
            if buffer is None:
                continue
            for start in np.flatnonzero(buffer.positions == positions[0]).tolist():
                if np.array_equal(buffer.positions[start : start + len(positions)], positions):
                    return buffer, start
        return None

    def _begin(self, buffer: _Buffer | None, positions: Positions) -> _Buffer:
        """Let the thread fill `buffer`, or a new one where it is too small."""
        if buffer is None or len(buffer.pixels) < len(positions):
            buffer = self._new(len(positions))
        buffer.filled.cancel()  # no longer wanted; where it has begun, the next one waits for it

        buffer.positions = positions
        buffer.filled = self._thread.submit(self._fill, buffer, positions)
        return buffer

    def _new(self, capacity: int) -> _Buffer:
        on_gpu = self._device.type == "cuda"
        pixels = torch.empty(
            (capacity, self._image_size, self._image_size, 3), dtype=torch.uint8, pin_memory=on_gpu
        )
        # The thread sleeps until it is reached, where it would spin by default.
        return _Buffer(pixels, copied=torch.cuda.Event(blocking=True) if on_gpu else None)  # type: ignore[no-untyped-call]

    def _fill(self, buffer: _Buffer, positions: Positions) -> None:
        if buffer.copied is not None:
            buffer.copied.synchronize()
        self._read(positions, buffer.pixels[: len(positions)].numpy())

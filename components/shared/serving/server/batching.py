"""Dynamic batching: images that arrive at the same time are computed together.

One thread computes. While it does, others gather, and are its next batch; so a batch waits only for
images that are being decoded already, at most the stated time, and a lone image never.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from components.shared.serving.server.refusals import Reason, RefusedError

A = TypeVar("A")
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class _Image(Generic[A]):
    """An image that waits. pixels: (S, S, 3) uint8. deadline: monotonic seconds."""

    pixels: Pixels
    deadline: float
    future: Future[A] = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)


class Batcher(Generic[A]):
    """A thread that answers images in batches."""

    def __init__(
        self,
        compute: Callable[[Pixels], Sequence[A]],
        *,
        batch_images: int,
        wait_seconds: float,
        on_batch: Callable[[int, float], object] | None = None,
    ) -> None:
        """Start the thread.

        Args:
            compute: returns an answer for each image of (B, S, S, 3) uint8.
            batch_images: most images of a batch.
            wait_seconds: longest time for which the first image of a batch waits for announced
                ones while nothing is computed.
            on_batch: is told each batch's number of images and its seconds, in the thread.
        """
        self._compute, self._on_batch = compute, on_batch
        self._batch_images, self._wait_seconds = batch_images, wait_seconds
        self._changed = threading.Condition()
        self._waiting: deque[_Image[A]] = deque()
        self._n_announced = 0
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="batches", daemon=True)
        self._thread.start()

    def announce(self) -> None:
        """Say that an image is about to come; `submit` or `withdraw` must follow."""
        with self._changed:
            self._n_announced += 1

    def withdraw(self) -> None:
        """Say that an announced image does not come."""
        with self._changed:
            self._n_announced -= 1
            self._changed.notify()

    def submit(self, pixels: Pixels, deadline: float) -> Future[A]:
        """Hand over an announced image.

        Args:
            pixels: (S, S, 3) uint8.
            deadline: after it, in monotonic seconds, the image is not computed any more.

        Returns:
            The future answer; RefusedError after the deadline, or the error of `compute`.
        """
        image = _Image[A](pixels, deadline)
        with self._changed:
            self._n_announced -= 1
            self._waiting.append(image)
            self._changed.notify()
        return image.future

    def close(self) -> None:
        """Answer what was submitted, then end the thread."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next():
            self._answer(batch)

    def _next(self) -> list[_Image[A]]:
        """Return the next batch; an empty one when all was answered and the batcher is closing."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closing)
            while self._n_announced and 0 < len(self._waiting) < self._batch_images:
                remaining = self._waiting[0].arrived + self._wait_seconds - time.monotonic()
                if remaining <= 0:
                    break
                self._changed.wait(remaining)

            count = min(len(self._waiting), self._batch_images)
            return [self._waiting.popleft() for _ in range(count)]

    def _answer(self, batch: list[_Image[A]]) -> None:
        started = time.monotonic()
        timely = [image for image in batch if image.deadline > started]
        for image in batch:
            if image.deadline <= started:
                image.future.set_exception(
                    RefusedError(Reason.TIMEOUT, "not computed in time; try again later", 1)
                )
        if not timely:
            return

        try:
            answers = self._compute(np.stack([image.pixels for image in timely]))
        except Exception as error:  # whatever it is, somebody waits for it
            for image in timely:
                image.future.set_exception(error)
            return

        if self._on_batch is not None:
            self._on_batch(len(timely), time.monotonic() - started)
        for image, answer in zip(timely, answers, strict=True):
            image.future.set_result(answer)

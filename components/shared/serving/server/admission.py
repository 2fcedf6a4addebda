"""Admission: how many images and bytes the server holds at a time."""

import math

from components.shared.serving.server.limits import Limits
from components.shared.serving.server.refusals import Reason, RefusedError

_LONGEST_RETRY_SECONDS = 60


class Admission:
    """Counts of what was accepted and is not answered yet; used by the event loop's thread only."""

    def __init__(self, limits: Limits) -> None:
        """Start with nothing accepted."""
        self._limits = limits
        self.n_images = self.n_bytes = 0
        self.seconds_per_image = 0.1  # of recent batches, as a moving average

    def accept(self, n_images: int) -> None:
        """Count the images of a request in.

        Raises:
            RefusedError: a request may never have so many, or not now.
        """
        most = self._limits.queued_images
        if n_images > most:
            raise RefusedError(
                Reason.TOO_LARGE, f"{n_images} images, at most {most} in one request"
            )
        if self.n_images + n_images > most:
            raise RefusedError(
                Reason.BUSY,
                f"{self.n_images} images are waiting, at most {most}; try again later",
                self._retry_after(),
            )
        self.n_images += n_images

    def answered(self, n_images: int) -> None:
        """Count the images of a request out, however it ended."""
        self.n_images -= n_images

    def hold(self, n_bytes: int) -> None:
        """Count bytes of a body in. Raises RefusedError where the server holds too many."""
        most = self._limits.held_bytes
        if self.n_bytes + n_bytes > most:
            raise RefusedError(
                Reason.BUSY,
                f"{self.n_bytes} bytes of requests are held, at most {most}; try again later",
                self._retry_after(),
            )
        self.n_bytes += n_bytes

    def let_go(self, n_bytes: int) -> None:
        """Count bytes of a body out."""
        self.n_bytes -= n_bytes

    def computed(self, n_images: int, seconds: float) -> None:
        """Take in how long a batch took."""
        self.seconds_per_image += 0.1 * (seconds / n_images - self.seconds_per_image)

    def _retry_after(self) -> int:
        """Whole seconds in which what is waiting will probably have been answered, at least 1."""
        seconds = math.ceil(self.n_images * self.seconds_per_image)
        return min(max(1, seconds), _LONGEST_RETRY_SECONDS)

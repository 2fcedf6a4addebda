"""Time that a rank spends in the parts of its steps, for profiles and for the cause of idleness."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from torch.profiler import record_function

__all__ = ["PARTS", "Timings"]

# Parts of a step, by the names that they have in a trace. Where two overlap, an instant belongs to
# the first of them: data are also read within the forward pass, and ranks wait within the backward.
PARTS = ("communication", "data", "forward", "backward", "optimizer")


class Timings:
    """Seconds of the host in each part, since they were last taken.

    A GPU computes meanwhile or later: what it does in each part is seen by a profile only.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = dict.fromkeys(PARTS, 0.0)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time of a `with` block, one of PARTS, and name it in a trace."""
        with record_function(name):
            began = time.perf_counter()
            try:
                yield
            finally:
                self._seconds[name] += time.perf_counter() - began

    def take(self) -> dict[str, float]:
        """Return the seconds of each of PARTS, and begin anew."""
        seconds, self._seconds = self._seconds, dict.fromkeys(PARTS, 0.0)
        return seconds

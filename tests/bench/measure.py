"""Ratios against a peer, measured in one process, interleaved, as medians."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """One comparison with a peer.

    Seconds are medians of one call; `goal` is the ratio to reach; `peer` describes the peer.
    """

    name: str
    peer: str
    ours_seconds: float
    peer_seconds: float
    goal: float
    note: str = ""

    @property
    def ratio(self) -> float:
        """Speed relative to the peer's."""
        return self.peer_seconds / self.ours_seconds


def interleaved(
    ours: Callable[[], object], peer: Callable[[], object], *, rounds: int, ours_per_round: int = 1
) -> tuple[float, float]:
    """Return the median seconds of one call of each, after one unmeasured call of both."""
    ours()
    peer()
    ours_seconds, peer_seconds = [], []
    for _ in range(rounds):
        ours_seconds += [_seconds(ours) for _ in range(ours_per_round)]
        peer_seconds.append(_seconds(peer))
    return statistics.median(ours_seconds), statistics.median(peer_seconds)


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started

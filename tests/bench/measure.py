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
    ours: Callable[[], object],
    peer: Callable[[], object],
    *,
    rounds: int,
    ours_per_round: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, float]:
    """Return the median seconds of one call of each, after one unmeasured call of both.

    `clock` returns seconds; `time.thread_time` counts those that this thread computes.
    """
    ours()
    peer()
    ours_seconds, peer_seconds = [], []
    for _ in range(rounds):
        ours_seconds += [_seconds(ours, clock) for _ in range(ours_per_round)]
        peer_seconds.append(_seconds(peer, clock))
    return statistics.median(ours_seconds), statistics.median(peer_seconds)


def _seconds(call: Callable[[], object], clock: Callable[[], float]) -> float:
    started = clock()
    call()
    return clock() - started

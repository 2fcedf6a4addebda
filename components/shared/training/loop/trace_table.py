"""Table of where the time of a step goes, from the trace of some steps.

The trace is Chrome's format as PyTorch's profiler writes it (Kineto): regions of the host are
`user_annotation`, work of the GPU is `kernel`, `gpu_memcpy` and `gpu_memset`, and a launch
(`cuda_runtime`, `cuda_driver`) has the `correlation` of what it launched. Times are microseconds.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.shared.training.loop.timings import PARTS

__all__ = ["PartTime", "time_by_part"]

IDLE = "idle"
_OTHER = "other"  # on the GPU: launched outside of all parts
_STEP = "ProfilerStep#"
_ON_GPU = ("kernel", "gpu_memcpy", "gpu_memset")
_LAUNCHES = ("cuda_runtime", "cuda_driver")
# Exposed communication alone counts on the GPU: what overlaps computation costs nothing.
_GPU_ORDER = ("data", "forward", "backward", "optimizer", _OTHER, "communication")
_ROWS = ("data", "forward", "backward", "optimizer", "communication", _OTHER, IDLE)

Interval = tuple[float, float]
Event = Mapping[str, Any]


@dataclass(frozen=True)
class PartTime:
    """Mean milliseconds of a step in one part, and the share of the step.

    `gpu_*` is None in the trace of a CPU. Of the host, `idle` is time outside of all parts; of the
    GPU, time in which nothing runs.
    """

    part: str
    host_ms: float
    host_share: float
    gpu_ms: float | None = None
    gpu_share: float | None = None


def time_by_part(events: Iterable[Event]) -> list[PartTime]:
    """Return a row for each part, and for idleness; none where the trace has no whole step.

    An instant of the host belongs to the first of PARTS that covers it. On the GPU, work belongs to
    the part that launched it, and communication has only the time in which nothing else runs.
    """
    events = [event for event in events if event.get("ph") == "X"]
    regions = [event for event in events if event.get("cat") == "user_annotation"]
    steps = [_interval(event) for event in regions if str(event["name"]).startswith(_STEP)]
    if not steps:
        return []

    by_part = {part: [_interval(e) for e in regions if e["name"] == part] for part in PARTS}
    host = _covered(by_part, PARTS, steps)
    gpu = _covered(_gpu_work(events, by_part), _GPU_ORDER, steps) if _has_gpu(events) else {}
    total = _length(_union(steps))

    def row(part: str) -> PartTime:
        spent, spent_gpu = host.get(part, 0.0), gpu.get(part, 0.0)
        return PartTime(
            part,
            spent / len(steps) / 1e3,
            spent / total,
            spent_gpu / len(steps) / 1e3 if gpu else None,
            spent_gpu / total if gpu else None,
        )

    return [row(part) for part in _ROWS if part != _OTHER or gpu.get(_OTHER)]


def _has_gpu(events: Sequence[Event]) -> bool:
    return any(event.get("cat") in _ON_GPU for event in events)


def _gpu_work(
    events: Sequence[Event], by_part: Mapping[str, list[Interval]]
) -> dict[str, list[Interval]]:
    """Return the intervals in which the GPU works for each part."""
    launched = {
        event["args"]["correlation"]: event["ts"]
        for event in events
        if event.get("cat") in _LAUNCHES and "correlation" in event.get("args", {})
    }
    merged = {part: _union(intervals) for part, intervals in by_part.items()}

    work: dict[str, list[Interval]] = {part: [] for part in _GPU_ORDER}
    for event in events:
        if event.get("cat") in _ON_GPU:
            at = launched.get(event.get("args", {}).get("correlation"))
            is_nccl = str(event["name"]).startswith("nccl")
            work["communication" if is_nccl else _part_at(at, merged)].append(_interval(event))
    return work


def _part_at(at: float | None, merged: Mapping[str, list[Interval]]) -> str:
    if at is not None:
        for part, intervals in merged.items():
            if any(start <= at <= end for start, end in intervals):
                return part
    return _OTHER


def _covered(
    intervals: Mapping[str, list[Interval]], order: Sequence[str], windows: list[Interval]
) -> dict[str, float]:
    """Return the length that each name covers and no earlier one does, and what none covers."""
    windows = _union(windows)
    seen: list[Interval] = []
    covered, length = {}, 0.0
    for name in order:
        seen = _union(seen + _clipped(intervals.get(name, []), windows))
        covered[name] = _length(seen) - length
        length = _length(seen)
    return covered | {IDLE: _length(windows) - length}


def _interval(event: Event) -> Interval:
    return float(event["ts"]), float(event["ts"]) + float(event.get("dur", 0))


def _union(intervals: Iterable[Interval]) -> list[Interval]:
    """Return disjoint intervals in order that cover the same."""
    merged: list[Interval] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _clipped(intervals: Iterable[Interval], windows: Sequence[Interval]) -> list[Interval]:
    return [
        (max(start, first), min(end, last))
        for start, end in intervals
        for first, last in windows
        if start < last and end > first
    ]


def _length(intervals: Iterable[Interval]) -> float:
    return sum(end - start for start, end in intervals)

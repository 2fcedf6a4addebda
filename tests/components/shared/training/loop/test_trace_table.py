"""The table of a step's parts, from traces written by hand in Kineto's form."""

from typing import Any

import pytest

from components.shared.training.loop.trace_table import PartTime, time_by_part

Event = dict[str, Any]


def _region(name: str, start: float, end: float) -> Event:
    return {"ph": "X", "cat": "user_annotation", "name": name, "ts": start, "dur": end - start}


def _kernel(name: str, start: float, end: float, launched: float, number: int) -> list[Event]:
    """A kernel and its launch, as the trace of a GPU has them: the correlation joins the two."""
    arguments = {"correlation": number}
    launch = {"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "ts": launched}
    kernel = {"ph": "X", "cat": "kernel", "name": name, "ts": start, "dur": end - start}
    return [launch | {"dur": 1.0, "args": arguments}, kernel | {"args": arguments}]


def _step(number: int, at: float) -> list[Event]:
    """1000 us: 500 forward, of which 100 read data, 300 backward with 50 of waiting, 100 update."""
    return [
        _region(f"ProfilerStep#{number}", at, at + 1000),
        _region("forward", at, at + 500),
        _region("data", at + 100, at + 200),
        _region("backward", at + 500, at + 800),
        _region("communication", at + 700, at + 750),
        _region("optimizer", at + 800, at + 900),
        {"ph": "X", "cat": "cpu_op", "name": "aten::mm", "ts": at + 10, "dur": 50},
        {"ph": "s", "cat": "fwdbwd", "name": "fwdbwd", "ts": at},
    ]


def _shares(rows: list[PartTime], field: str = "host_share") -> dict[str, float]:
    return {row.part: round(getattr(row, field), 6) for row in rows}


def test_each_instant_of_the_host_belongs_to_one_part() -> None:
    rows = time_by_part([*_step(1, 0), *_step(2, 5000)])
    assert _shares(rows) == {
        "data": 0.1,
        "forward": 0.4,
        "backward": 0.25,
        "optimizer": 0.1,
        "communication": 0.05,
        "idle": 0.1,
    }
    assert sum(row.host_ms for row in rows) == pytest.approx(1.0)
    assert {row.gpu_ms for row in rows} == {None}


def test_a_gpus_work_belongs_to_the_part_that_launched_it() -> None:
    """Kernels run after their launch, on two streams; the all-reduce overlaps the backward pass."""
    events = [
        *_step(1, 0),
        *_kernel("copy", 150, 200, 150, 1),
        *_kernel("gemm", 250, 600, 300, 2),
        *_kernel("gemm_backward", 600, 850, 550, 3),
        *_kernel("ncclDevKernel_AllReduce_Sum_f32", 700, 900, 690, 4),
        *_kernel("adam", 900, 950, 810, 5),
        *_kernel("zero_", 950, 960, 950, 6),
    ]
    rows = time_by_part(events)
    assert _shares(rows, "gpu_share") == {
        "data": 0.05,
        "forward": 0.35,
        "backward": 0.25,
        "optimizer": 0.05,
        "communication": 0.05,  # 50 of 200 us are not hidden behind computation
        "other": 0.01,
        "idle": 0.24,
    }
    assert sum(row.gpu_ms or 0 for row in rows) == pytest.approx(1.0)


def test_work_outside_the_steps_does_not_count() -> None:
    """An evaluation between two steps."""
    events = [*_step(1, 0), _region("forward", 1000, 4000), *_step(2, 5000)]
    assert _shares(time_by_part(events)) == _shares(time_by_part(_step(1, 0)))


def test_a_trace_without_a_step_has_no_table() -> None:
    assert time_by_part([_region("forward", 0, 10)]) == []

"""Profiles of a few steps: which ones, and what they hold."""

import gzip
import json

import pytest
import torch

from components.shared.training.loop.profiler import Profile, StepProfiler
from components.shared.training.loop.timings import Timings


def _work() -> torch.Tensor:
    return (torch.ones(20, 20) @ torch.ones(20, 20)).sum()


def _profiled(planned: int, n_steps: int) -> Profile | None:
    profiler, timings = StepProfiler(planned, gpu=False), Timings()
    for _ in range(n_steps):
        with profiler.step(), timings.part("forward"):
            _work()
    return profiler.close()


def test_a_profile_has_a_trace_a_table_and_the_hosts_functions() -> None:
    profile = _profiled(30, 30)
    assert profile is not None
    assert profile.n_steps == 5
    assert "aten::mm" in profile.operators
    assert "_work" in profile.functions
    assert "/" not in profile.functions.split("filename", 1)[1]  # no folder of this machine

    trace = json.loads(gzip.decompress(profile.trace))
    names = [event["name"] for event in trace["traceEvents"] if event.get("ph") == "X"]
    assert names.count("forward") == 5
    assert "host_name" not in trace

    shares = {row.part: row.host_share for row in profile.parts}
    assert shares["forward"] > 0.3
    assert sum(shares.values()) == pytest.approx(1)


def test_the_first_steps_are_not_profiled_where_there_are_others() -> None:
    assert _profiled(30, 15) is None  # 10 wait, 1 warms up, and the fifth is not done
    assert _profiled(30, 16) is not None


def test_of_a_few_steps_some_are_profiled() -> None:
    assert _profiled(1, 1) is None  # it warms up
    for n_steps in (2, 3, 4, 7):
        profile = _profiled(n_steps, n_steps)
        assert profile is not None, n_steps
        assert profile.n_steps == max(1, (n_steps - 1) // 3)
        assert bool(profile.functions) == (n_steps > 2)


def test_an_end_within_the_trace_leaves_the_profiler_free_for_the_next() -> None:
    assert _profiled(30, 13) is None
    assert _profiled(30, 30) is not None

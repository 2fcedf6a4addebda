"""Profiles of a few steps of a training: PyTorch's trace, then the host's functions by cProfile."""

import cProfile
import gzip
import io
import json
import pstats
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity

from components.shared.training.loop.trace_table import PartTime, time_by_part

__all__ = ["Profile", "StepProfiler"]

# The first steps rehearse memory, compile, and let cuDNN choose its kernels.
_WAIT, _WARMUP, _ACTIVE = 10, 1, 5
_N_ROWS = 25


@dataclass(frozen=True)
class Profile:
    """What the profiled steps took.

    Attributes:
        n_steps: How many steps are in the trace.
        parts: Mean time of a step by part.
        operators: Table of the operators that took longest, as text.
        functions: Table of the host's functions that took longest, as text; empty where the
            training had no step left for it.
        trace: Chrome trace, gzip.
    """

    n_steps: int
    parts: list[PartTime]
    operators: str
    functions: str
    trace: bytes


class StepProfiler:
    """Profiles some of the next steps; `profile` has the result once they are done.

    PyTorch's profiler and cProfile see different steps: each call costs cProfile time, which would
    be in the trace.
    """

    def __init__(self, n_steps: int, *, gpu: bool) -> None:
        """Plan for a training with `n_steps` steps to come; of few, fewer are profiled."""
        self._active = max(1, min(_ACTIVE, (n_steps - 1) // 3))
        self._first = max(0, min(_WAIT, n_steps - _WARMUP - 2 * self._active))
        self._end_of_trace = self._first + _WARMUP + self._active
        self._gpu, self._seen = gpu, 0
        self._tracer: torch.profiler.profile | None = None
        self._functions = cProfile.Profile()
        self.profile: Profile | None = None

    @contextmanager
    def step(self) -> Iterator[None]:
        """Surround one step."""
        number, self._seen = self._seen, self._seen + 1
        if number == self._first:
            self._tracer = self._started()
        in_functions = 0 <= number - self._end_of_trace < self._active
        if in_functions:
            self._functions.enable()

        try:
            yield
        finally:
            if in_functions:
                self._functions.disable()

        if self._tracer is not None:
            self._tracer.step()
            if self._seen == self._end_of_trace:
                self._finish_trace(self._tracer)
                self._tracer = None

    def close(self) -> Profile | None:
        """End an unfinished trace; return the profile, None where training ended before it."""
        if self._tracer is not None:
            self._tracer.stop()
            self._tracer = None
        if self.profile is None or self._seen <= self._end_of_trace:
            return self.profile
        return Profile(**(vars(self.profile) | {"functions": _functions(self._functions)}))

    def _started(self) -> torch.profiler.profile:
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * self._gpu
        schedule = torch.profiler.schedule(wait=0, warmup=_WARMUP, active=self._active, repeat=1)
        tracer = torch.profiler.profile(activities=activities, schedule=schedule)
        tracer.start()
        return tracer

    def _finish_trace(self, tracer: torch.profiler.profile) -> None:
        tracer.stop()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "trace.json")
            tracer.export_chrome_trace(str(file))
            document = json.loads(file.read_bytes())

        for name in ("host_name", "traceName"):  # of this machine, and a temporary file
            document.pop(name, None)
        by = f"self_{'cuda' if self._gpu else 'cpu'}_time_total"
        self.profile = Profile(
            n_steps=self._active,
            parts=time_by_part(document["traceEvents"]),
            operators=tracer.key_averages().table(sort_by=by, row_limit=_N_ROWS),
            functions="",
            trace=gzip.compress(json.dumps(document).encode(), mtime=0),
        )


def _functions(profile: cProfile.Profile) -> str:
    """Return the functions with the longest cumulative time as text, without folders' names."""
    text = io.StringIO()
    pstats.Stats(profile, stream=text).strip_dirs().sort_stats("cumulative").print_stats(_N_ROWS)
    return text.getvalue().strip()

"""What a training takes of the machine: a GPU's usage in each epoch, and the profile of some steps.

None of it is the same twice, so that it is in no artifact with a digest: it is a page of its own
beside them. Where a training computes deterministically, so that equal inputs give equal bytes,
metrics.csv and TensorBoard are free of it; elsewhere they have the GPU's usage too.
"""

import base64
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jinja2
import numpy as np
import torch

from components.shared.contracts.listing import say
from components.shared.contracts.pages import templates
from components.shared.training.loop.distributed import World
from components.shared.training.loop.gpu_monitor import USAGE, GpuMonitor
from components.shared.training.loop.profiler import StepProfiler

__all__ = ["Measurements"]

_MOST_IDLE = 0.2
_REMEDIES = {
    "data": "more CPU cores or faster storage for the step",
    "communication": "a faster connection between the GPUs, or a larger global_batch_size",
    "host": "a larger micro_batch_size, or compile",
}

Row = dict[str, float]


class Measurements:
    """Measures one training, as a rank sees it; only the main rank's become a page.

    On a CPU there is nothing to measure but a profile, where one is asked for.
    """

    def __init__(self, world: World, *, profile: bool = False) -> None:
        """Begin to watch the GPU of this rank."""
        self._world, self._wants_profile = world, profile and world.is_main
        self._on_gpu = world.device.type == "cuda"
        self._monitor = GpuMonitor(world.device) if self._on_gpu else None
        self._profiler: StepProfiler | None = None
        self.epochs: list[Row] = []
        self._began = time.perf_counter()

    def begin(self, n_steps: int) -> None:
        """Start with the training's steps, of which there are `n_steps` to come."""
        if self._wants_profile and n_steps > 0:
            self._profiler = StepProfiler(n_steps, gpu=self._on_gpu)
        self._world.timings.take()
        self._began = time.perf_counter()

    @contextmanager
    def step(self) -> Iterator[None]:
        """Surround one step."""
        if self._profiler is None:
            yield
            return
        with self._profiler.step():
            yield

    def end_epoch(self, epoch: int) -> None:
        """Keep the usage since the last call; a collective call where there are GPUs.

        A warning names the cause where they were idle for more than a fifth of the time.
        """
        parts, now = self._world.timings.take(), time.perf_counter()
        seconds, self._began = now - self._began, now
        if self._monitor is None:
            return

        # (R, 4 + 3): what each rank saw.
        own = [*self._monitor.take(), seconds, parts["data"], parts["communication"]]
        part = torch.tensor([own], dtype=torch.float64)
        seen = self._world.gather_rows(part, self._world.size).numpy()
        seen = seen[np.isfinite(seen).all(axis=1)]
        if not len(seen):
            return

        mean, largest = seen.mean(axis=0), seen.max(axis=0)
        values = (mean[0], largest[1], mean[2], largest[3])
        row = {"epoch": float(epoch), **dict(zip(USAGE, map(float, values), strict=True))}
        self.epochs.append(row | {"seconds": float(mean[4])})
        self._warn(epoch, 1 - mean[0], data=mean[5] / mean[4], communication=mean[6] / mean[4])

    def joined(self, history: list[Row]) -> list[Row]:
        """Return the history with the GPU's usage, where equal trainings may differ anyway.

        Epochs before an interruption have NaN.
        """
        if not self.epochs or torch.are_deterministic_algorithms_enabled():
            return history
        usage = {row["epoch"]: row for row in self.epochs}
        return [
            row | {name: usage.get(row["epoch"], {}).get(name, float("nan")) for name in USAGE}
            for row in history
        ]

    def close(self) -> None:
        """End the watch."""
        if self._monitor is not None:
            self._monitor.close()

    def write(self, page: Path) -> None:
        """Write the page (HTML); it contains its files, so that it can be sent and kept alone."""
        profile = self._profiler.close() if self._profiler is not None else None
        text = _template().render(
            epochs=self.epochs,
            on_gpu=self._on_gpu,
            profile=profile,
            wants_profile=self._wants_profile,
            trace=base64.b64encode(profile.trace).decode() if profile is not None else "",
        )
        page.write_text(text, encoding="utf-8")

    def _warn(self, epoch: int, idle: float, *, data: float, communication: float) -> None:
        if idle <= _MOST_IDLE or not self._world.is_main:
            return
        # What remains of the idle time is the host's: it launched too slowly, or did other work.
        shares = {
            "data": data,
            "communication": communication,
            "host": max(0.0, idle - data - communication),
        }
        cause = max(shares, key=lambda name: shares[name])
        say(
            f"warning: the GPU was idle for {idle:.0%} of epoch {epoch}; cause: {cause}"
            f" ({', '.join(f'{name} {share:.0%}' for name, share in shares.items())} of the time);"
            f" it may need {_REMEDIES[cause]}"
        )


def _template() -> jinja2.Template:
    environment = templates("components.shared.training.loop.templates")
    return environment.get_template("measurements.html.jinja")

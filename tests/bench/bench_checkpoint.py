"""Cost of checkpoints and their remote to a training, at the default interval of 600 s.

A model of DINOv2-S's size (22 million parameters, all trained: 440 MB of state) trains with and
without one checkpoint that is written, synced and uploaded to a real S3 server meanwhile. What the
run takes longer, over 600 s, is the cost. The server has one core, as on a cluster it has a
machine; training and everything that writes, hashes and sends a checkpoint share another one, so
that none of it is hidden in a core that training leaves idle.
"""

import os
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import torch
from torch import distributed as dist
from torch import nn

from components.shared.contracts.options import LaunchConfig, LoopConfig
from components.shared.storage import Store, StoreSettings
from components.shared.training.checkpoint.remote import RemoteCheckpoints
from components.shared.training.checkpoint.writer import CheckpointWriter
from components.shared.training.loop.distributed import World
from components.shared.training.loop.state import TrainingState
from components.shared.training.session.fit import fit
from pipelines.local.embedded_store import embedded_store
from tests.bench.measure import Result, interleaved

_WIDTH, _LAYERS, _BATCH, _STEPS = 2096, 5, 8, 120
_ROUNDS = 2
_LOOP = LoopConfig(
    epochs=1,
    learning_rate=1e-4,
    global_batch_size=_BATCH,
    weight_decay=0.01,
    warmup_ratio=0.1,
    gradient_clip=1.0,
    ema_decay=0.99,
    seed=0,
)


class _Wide:
    """A task of the right size; `n_samples` gives one epoch of _STEPS steps."""

    n_samples = _BATCH * _STEPS
    monitor = "score"

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.module: nn.Module = nn.Sequential(*(nn.Linear(_WIDTH, _WIDTH) for _ in range(_LAYERS)))
        self.inputs = torch.randn(_BATCH, _WIDTH)

    def loss(
        self,
        model: nn.Module,
        positions: npt.NDArray[np.int64],
        batch_slots: npt.NDArray[np.int64],
        step: int,
    ) -> torch.Tensor:
        loss: torch.Tensor = model(self.inputs[: len(positions)]).square().mean(dim=1).sum()
        return loss

    def evaluate(self) -> dict[str, float]:
        return {"score": 0.0}


class _Once(CheckpointWriter):
    """One checkpoint, after the third step.

    `waited` is the time in seconds for which training stood still; `worked` the processor time of
    the threads that wrote and uploaded it, which other programs do not change.
    """

    waited = worked = 0.0

    def due(self, step: int) -> bool:
        self._began = time.perf_counter()
        return step == 3

    def save(self, state: TrainingState) -> None:
        super().save(state)
        self.waited = time.perf_counter() - self._began

    def _write(self, state: TrainingState) -> None:
        super()._write(state)
        self.worked += time.thread_time()

    def close(self) -> None:
        assert self._writer is not None
        assert self._uploads is not None
        assert not self._writer.is_alive(), (
            "training was over before the checkpoint was written: more steps"
        )
        assert not self._uploads.held(), (
            "training was over before the checkpoint was stored: more steps"
        )
        assert not self._failure + self._uploads.failure
        uploads = next(thread for thread in threading.enumerate() if thread.name == "uploads")
        assert uploads.ident is not None
        self.worked += time.clock_gettime(time.pthread_getcpuclockid(uploads.ident))
        super().close()


def run() -> list[Result]:
    """One result; the weights must be the same with and without."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    config = LaunchConfig()
    runs: list[_Once] = []
    with TemporaryDirectory() as folder, _server(Path(folder)) as settings:
        torch.testing.assert_close(
            _with(Path(folder), config, settings, runs), _without(), rtol=0, atol=0
        )
        with_seconds, without_seconds = interleaved(
            lambda: _with(Path(folder), config, settings, runs), _without, rounds=_ROUNDS
        )
    dist.destroy_process_group()
    every = config.checkpoint_seconds
    extra = max(0.0, with_seconds - without_seconds)
    waited, worked = (
        statistics.median(getattr(run, name) for run in runs) for name in ("waited", "worked")
    )
    note = (
        f"one checkpoint of 440 MB: {extra:.2f} s more over {without_seconds:.1f} s, of which the"
        f" step that took it {waited:.2f} s; overhead {100 * extra / every:.2f} %; processor time"
        f" of writing and uploading {worked:.2f} s: {100 * (waited + worked) / every:.2f} % with"
        " the wait"
    )
    name = f"checkpoints and remote every {every} s"
    return [
        Result(name, "the same training without", every + extra, float(every), goal=0.99, note=note)
    ]


@contextmanager
def _server(folder: Path) -> Iterator[StoreSettings]:
    """An S3 server on a core that this process does not use meanwhile."""
    before, threads = os.sched_getaffinity(0), torch.get_num_threads()
    ours, theirs = sorted(before)[:2]
    os.sched_setaffinity(0, {theirs})  # what the server inherits
    with embedded_store(folder / "store", buckets=("bench",)) as settings:
        os.sched_setaffinity(0, {ours})
        torch.set_num_threads(1)
        try:
            yield settings
        finally:
            torch.set_num_threads(threads)
            os.sched_setaffinity(0, before)


def _with(
    folder: Path, config: LaunchConfig, settings: StoreSettings, runs: list[_Once]
) -> list[torch.Tensor]:
    remote = RemoteCheckpoints(Store(settings), "s3://bench/trainings", "key")
    remote.claim()
    with TemporaryDirectory(dir=folder) as place:
        checkpoints = _Once(Path(place), config, step="bench", remote=remote)
        weights = _train(checkpoints)
    runs.append(checkpoints)
    return weights


def _without() -> list[torch.Tensor]:
    return _train(None)


def _train(checkpoints: CheckpointWriter | None) -> list[torch.Tensor]:
    task = _Wide()
    fit(task, _LOOP, World(0, 1, torch.device("cpu")), checkpoints=checkpoints)
    return [parameter.detach() for parameter in task.module.parameters()]

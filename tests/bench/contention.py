"""Seconds of a training step beside busy processes, by how OpenMP's threads wait for each other.

`python -m tests.bench.contention [ROUNDS]` trains the demo's classifier with each way of waiting in
turn, on one process and on two, alone and beside one busy process per core, and prints each time
and the medians. A
thread that spins keeps its core until the scheduler takes it away; the thread it waits for may be
the one that has none.
"""

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

from components.import_backbone.config import ImportBackboneConfig
from components.import_backbone.step import run as import_backbone
from components.ingest_dataset.config import IngestConfig
from components.ingest_dataset.step import run as ingest_dataset
from components.shared.contracts.machine import n_usable_cores
from components.shared.training.launch import torchrun
from components.shared.training.launch.heartbeat import Heartbeat
from components.split_dataset.config import SplitConfig
from components.split_dataset.step import run as split_dataset
from components.train_baseline.config import TrainBaselineConfig
from components.train_baseline.step import run as train_baseline
from pipelines.demo.backbone import write_demo_backbone
from pipelines.demo.dataset import write_demo_data

WAITING = {
    "OpenMP's default": {},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "GOMP_SPINCOUNT=0": {"GOMP_SPINCOUNT": "0"},
}
_VARIABLES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
_N_IMAGES, _WARMUP_STEPS = 240, 1


class _Timed(Heartbeat):
    """Signs of life that are noted with their time whenever the launcher looks at them."""

    seen: list[tuple[float, int]]

    def __init__(self, file: Path, n_processes: int = 0) -> None:
        super().__init__(file, n_processes)
        type(self).seen = []

    def hung(self, limit_seconds: float) -> str:
        self.seen.append((time.monotonic(), int(self._rows[0, 0])))
        return super().hung(limit_seconds)


def _prepare(root: Path) -> None:
    write_demo_data(root / "data", n_images=_N_IMAGES)
    write_demo_backbone(root / "folder")
    ingest_dataset(IngestConfig(data=str(root / "data")), dataset=root / "dataset")
    split_dataset(
        SplitConfig(),
        dataset=root / "dataset",
        splits=root / "splits",
        train_images=root / "train_images",
        train_labels=root / "train_labels",
    )
    import_backbone(
        ImportBackboneConfig(backbone=str(root / "folder")), pretrained=root / "backbone"
    )


def step_seconds(root: Path, n_processes: int, variables: dict[str, str]) -> float:
    """Train a few epochs and return the seconds of a step, validation included."""
    config = TrainBaselineConfig(
        mode="full", epochs=3, global_batch_size=32, n_processes=n_processes
    )
    kept = {name: value for name, value in os.environ.items() if name not in _VARIABLES}
    with (
        TemporaryDirectory(dir=root) as out,
        mock.patch.dict(os.environ, kept | variables, clear=True),
        mock.patch.object(torchrun, "Heartbeat", _Timed),
    ):
        train_baseline(
            config,
            dataset=root / "dataset",
            splits=root / "splits",
            backbone=root / "backbone",
            checkpoint=Path(out) / "checkpoint",
            val_select_logits=Path(out) / "logits",
        )
    steps = [(at, step) for at, step in _Timed.seen if step >= _WARMUP_STEPS]
    last = next(index for index, (_, step) in enumerate(steps) if step == steps[-1][1])
    return (steps[last][0] - steps[0][0]) / (steps[last][1] - steps[0][1])


@contextlib.contextmanager
def busy(n_processes: int) -> Iterator[None]:
    """Keep as many processes computing."""
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(n_processes)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main() -> None:
    """Print a table of medians."""
    n_rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    n_cores = n_usable_cores()
    found: dict[tuple[int, int, str], list[float]] = defaultdict(list)
    with TemporaryDirectory() as folder:
        _prepare(Path(folder))
        for _ in range(n_rounds):
            for n_processes in (1, 2):
                for n_busy in (0, n_cores):
                    for name, variables in WAITING.items():
                        with busy(n_busy):
                            seconds = step_seconds(Path(folder), n_processes, variables)
                        found[n_processes, n_busy, name].append(seconds)
                        _print_row(n_processes, n_busy, name, seconds)
    print(f"medians of {n_rounds} rounds, {n_cores} cores, load {os.getloadavg()[0]:.1f}")
    for key, seconds in found.items():
        _print_row(*key, statistics.median(seconds))


def _print_row(n_processes: int, n_busy: int, name: str, seconds: float) -> None:
    print(f"| {n_processes} | {n_busy} | {name} | {seconds:.3f} s |", flush=True)


if __name__ == "__main__":
    main()

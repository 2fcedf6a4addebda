"""The toy task as a phase whose input is an artifact, for trainings on several nodes.

The input's faults.json lists one [kind, step] for each start of the processes, as in `Toy`, for the
last rank, and "node": its whole node is killed. TOY_STARTS is a folder with a mark for every start.
"""

import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from components.shared.contracts.artifacts import writing
from components.shared.contracts.config import Config
from components.shared.contracts.options import LaunchConfig
from components.shared.contracts.step import InputDir, OutputDir
from components.shared.training.checkpoint.writer import CheckpointWriter
from components.shared.training.loop.distributed import World
from components.shared.training.session.fit import fit
from components.shared.training.session.rank import run_rank
from components.shared.training.session.training_session import TrainingSession
from tests.components.shared.training import toy
from tests.components.shared.training.toy import Positions, Toy
from tests.components.shared.training.toy_phase import WaitingCheckpoints

MODULE = "tests.components.shared.training.toy_nodes"


@dataclass(frozen=True, kw_only=True)
class NodesConfig(LaunchConfig):
    """Configuration of the phase."""


class FaultyToy(Toy):
    """The toy, which also fails as `kind` "node" says."""

    def loss(
        self, model: nn.Module, positions: Positions, batch_slots: Positions, step: int
    ) -> torch.Tensor:
        """As of the toy; the parent of torchrun is the pod's first process."""
        if self.fault == "node" and step == self.at and self.world.rank == self.world.size - 1:
            status = Path(f"/proc/{os.getppid()}/status").read_text(encoding="ascii")
            (line,) = (line for line in status.splitlines() if line.startswith("PPid:"))
            os.kill(int(line.split()[1]), signal.SIGKILL)
        return super().loss(model, positions, batch_slots, step)


def write_faults(folder: Path, *faults: tuple[str, int]) -> Path:
    """The input artifact: one fault for each start."""
    with writing(folder, kind="Faults", step="test", config=Config()) as out:
        (out / "faults.json").write_text(json.dumps(faults), encoding="utf-8")
    return folder


def run(config: NodesConfig, *, faults: InputDir, weights: OutputDir) -> None:
    """The step: train, write the weights."""
    training = TrainingSession(config, step="toy_nodes", inputs={"faults": faults}, beside=weights)
    training.raise_recorded_failure()
    with (
        training.run(MODULE) as work,
        writing(weights, kind="Weights", step="toy_nodes", config=config) as out,
    ):
        (work / "weights.safetensors").replace(out / "weights.safetensors")


def train(
    config: NodesConfig, faults: Path, work: Path, world: World, checkpoints: CheckpointWriter
) -> None:
    """One rank."""
    starts = Path(os.environ["TOY_STARTS"])
    fault, at = "", 0
    if world.rank == world.size - 1:
        start = len(list(starts.iterdir()))
        (starts / str(start)).touch()
        planned = json.loads((faults / "faults.json").read_text(encoding="utf-8"))
        fault, at = planned[start] if start < len(planned) else (fault, at)
    checkpoints.__class__ = WaitingCheckpoints
    task = FaultyToy(world, fault=fault, at=at, width=4)
    fit(task, toy.config(micro_batch_size=3), world, checkpoints=checkpoints)
    if world.is_main:
        save_file(task.module.state_dict(), work / "weights.safetensors")


if __name__ == "__main__":
    run_rank(train, NodesConfig, __doc__)

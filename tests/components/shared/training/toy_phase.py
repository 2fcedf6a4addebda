"""The toy task as a phase: a step and its torchrun entry, whose last rank fails as a plan says.

`plan/faults.json` lists one [kind, step] for each start of the processes, kinds as in `Toy` and
"oom": killed, after the container's count of out-of-memory kills rose; later starts run through.
Beside the plan, which is an input, lies what changes: that count, and a mark for every start.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from components.shared.contracts.artifacts import write_json, writing
from components.shared.contracts.config import option
from components.shared.contracts.options import LaunchConfig
from components.shared.contracts.step import InputDir, OutputDir
from components.shared.training.checkpoint.writer import CheckpointWriter
from components.shared.training.loop.distributed import World
from components.shared.training.loop.state import TrainingState
from components.shared.training.session.fit import fit
from components.shared.training.session.rank import run_rank
from components.shared.training.session.training_session import TrainingSession
from tests.components.shared.training import toy
from tests.components.shared.training.toy import Positions, Toy

MODULE = "tests.components.shared.training.toy_phase"


@dataclass(frozen=True, kw_only=True)
class ToyConfig(LaunchConfig):
    """Configuration of the toy phase."""

    micro_batch_size: int | None = option(
        None, "Samples per forward pass and process.", ge=1, unset="auto"
    )


class WaitingCheckpoints(CheckpointWriter):
    """Training waits until a checkpoint is on disk and in the store, so that it is known from where
    it goes on.
    """

    def save(self, state: TrainingState) -> None:
        """As always, and done when this returns."""
        super().save(state)
        assert self._writer is not None
        self._writer.join()
        if self._uploads is not None:
            self._uploads.wait()


class PlannedToy(Toy):
    """The toy, which also fails as `kind` "oom" says."""

    counter: Path

    def loss(
        self, model: nn.Module, positions: Positions, batch_slots: Positions, step: int
    ) -> torch.Tensor:
        """As of the toy; the kernel counts before it kills."""
        if self.fault == "oom" and step == self.at and self.world.rank == self.world.size - 1:
            write_counter(self.counter, 1)
            self.fault = "kill"
        return super().loss(model, positions, batch_slots, step)


def write_plan(folder: Path, *faults: tuple[str, int]) -> Path:
    """One fault for each start."""
    folder.mkdir(parents=True)
    (folder / "faults.json").write_text(json.dumps(faults), encoding="utf-8")
    _log(folder).mkdir()
    write_counter(counter_of(folder), 0)
    return folder


def counter_of(plan: Path) -> Path:
    """What stands for the container's memory.events."""
    return _log(plan) / "memory.events"


def write_counter(file: Path, n_kills: int) -> None:
    """In the form of the kernel's documentation, admin-guide/cgroup-v2."""
    lines = (
        "low 0",
        "high 0",
        "max 9",
        f"oom {n_kills}",
        f"oom_kill {n_kills}",
        "oom_group_kill 0",
    )
    file.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")


def n_starts(plan: Path) -> int:
    """How often the processes were started."""
    return len(list(_log(plan).glob("start-*")))


def run(config: ToyConfig, *, plan: InputDir, weights: OutputDir) -> None:
    """The step: train, write the weights."""
    training = TrainingSession(config, step="toy", inputs={"plan": plan}, beside=weights)
    training.raise_recorded_failure()
    with (
        training.run(MODULE) as work,
        writing(weights, kind="Weights", step="toy", config=config) as out,
    ):
        for name in ("weights.safetensors", "training.json"):
            (work / name).replace(out / name)


def train(
    config: ToyConfig, plan: Path, work: Path, world: World, checkpoints: CheckpointWriter
) -> None:
    """One rank. The directory that it makes must not be there from an earlier start."""
    fault, at = _next_fault(plan) if world.rank == world.size - 1 else ("", 0)
    task = PlannedToy(world, fault=fault, at=at)
    task.counter = counter_of(plan)
    if world.is_main:
        (work / "checkpoint").mkdir()
    checkpoints.__class__ = WaitingCheckpoints
    loop = toy.config(micro_batch_size=config.micro_batch_size)
    result = fit(task, loop, world, checkpoints=checkpoints)
    if world.is_main:
        save_file(task.module.state_dict(), work / "weights.safetensors")
        write_json(
            work / "training.json",
            {"micro_batch_size": result.micro_batch_size, "history": result.history},
        )


def _next_fault(plan: Path) -> tuple[str, int]:
    start = n_starts(plan)
    (_log(plan) / f"start-{start}").touch()
    faults = json.loads((plan / "faults.json").read_text(encoding="utf-8"))
    return tuple(faults[start]) if start < len(faults) else ("", 0)


def _log(plan: Path) -> Path:
    return plan.with_name(f"{plan.name}-log")


if __name__ == "__main__":
    run_rank(train, ToyConfig, __doc__)

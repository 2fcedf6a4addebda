"""A teacher is the running average of its student, whatever interrupts the training."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from components.shared.contracts.options import LaunchConfig
from components.shared.training.checkpoint import files as checkpoint_files
from components.shared.training.checkpoint.writer import CheckpointWriter
from components.shared.training.loop.distributed import World
from components.shared.training.loop.state import TrainingState
from components.shared.training.loop.task import TeachingTask
from components.shared.training.session.fit import FitResult, fit
from tests.components.shared.training import toy
from tests.components.shared.training.toy import Positions

N_STEPS = 8


class _Module(nn.Module):
    """A linear map, a frozen one, and a centre in a buffer."""

    centre: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.frozen = nn.Linear(5, 5).requires_grad_(False)
        self.last = nn.Linear(5, 3)
        self.register_buffer("centre", torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.Tensor(self.last(self.frozen(x).tanh()))


class Taught:
    """The student must say what the teacher says, less a running centre, about other inputs; fails
    at `fault`.
    """

    n_samples = 40
    monitor = None

    def __init__(self, fault: int = -1) -> None:
        self.inputs = torch.randn(self.n_samples, 5, generator=torch.Generator().manual_seed(0))
        self.module: nn.Module = _Module()
        self.teacher: nn.Module = copy.deepcopy(self.module).requires_grad_(False)
        self.fault, self.begun = fault, 0
        self.targets = torch.empty(0)

    def begin_step(self, batch: Positions, batch_slots: Positions, step: int) -> None:
        """The teacher's answers, and its mean into the centre."""
        if step == self.fault:
            raise ValueError("planted")
        self.begun += 1
        assert isinstance(self.module, _Module)
        with torch.no_grad():
            answers = self.teacher(self.inputs[batch[batch_slots]])
            self.targets = answers - self.module.centre
            self.module.centre.lerp_(answers.mean(dim=0), 0.1)

    def loss(
        self, model: nn.Module, positions: Positions, batch_slots: Positions, step: int
    ) -> torch.Tensor:
        """Squared error to the targets, of this chunk of the batch."""
        return (model(self.inputs[positions] * 1.1) - self.targets[batch_slots]).square().sum()

    def evaluate(self) -> dict[str, float]:
        """None: the last epoch is kept."""
        return {"weight": float(self.module.state_dict()["last.weight"].sum())}


class _Waiting(CheckpointWriter):
    def save(self, state: TrainingState) -> None:
        super().save(state)
        self.close()


def _train(world: World, place: Path, fault: int = -1) -> tuple[Taught, FitResult]:
    place.mkdir(exist_ok=True)
    config = LaunchConfig(checkpoint_steps=1)
    checkpoints = _Waiting(place, config, step="toy", found=checkpoint_files.newest(place))
    task = Taught(fault)
    changes = toy.config(micro_batch_size=4, ema_decay=0.9)
    return task, fit(task, changes, world, checkpoints=checkpoints)


def _bits(task: Taught, result: FitResult) -> tuple[list[bytes], str]:
    states = [*task.module.state_dict().values(), *task.teacher.state_dict().values()]
    return [value.numpy().tobytes() for value in states], repr(result)


@pytest.mark.parametrize("at", range(1, N_STEPS))
def test_interrupted_at_any_step_student_teacher_and_centre_end_the_same(
    world: World, tmp_path: Path, at: int
) -> None:
    expected = _bits(*_train(world, tmp_path / "plain"))
    with pytest.raises(ValueError, match="planted"):
        _train(world, tmp_path / "x", at)
    assert _bits(*_train(world, tmp_path / "x")) == expected


def test_the_teacher_is_the_average_from_the_first_step_and_what_is_kept(world: World) -> None:
    task = Taught()
    assert isinstance(task, TeachingTask)
    assert not isinstance(toy.Toy(world), TeachingTask)
    start = task.module.state_dict()["last.weight"].clone()
    result = fit(task, toy.config(ema_decay=0.9), world)
    kept, taught = task.module.state_dict()["last.weight"], task.teacher.state_dict()["last.weight"]
    assert torch.equal(kept, taught)
    assert not torch.equal(kept, start)
    assert result.best_epoch == len(result.history) == 4
    assert task.begun == N_STEPS  # once a step, not once a micro-batch

"""The training loop on one and on two processes: equality, agreement on problems, early
stopping.
"""

import json
import math
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from components.shared.contracts.errors import PermanentError, StreetVisionError, TransientError
from components.shared.contracts.options import LaunchConfig
from components.shared.training.checkpoint import files as checkpoint_files
from components.shared.training.launch.torchrun import launch
from components.shared.training.loop import trainer as trainer_module
from components.shared.training.loop.distributed import World
from components.shared.training.loop.read_ahead import Pixels, ReadAhead
from components.shared.training.loop.task import ReadingTask
from components.shared.training.loop.trainer import Trainer
from components.shared.training.session.fit import FitResult, fit
from tests.components.shared.training import toy
from tests.components.shared.training.toy import Positions


def weights(task: toy.Toy) -> dict[str, torch.Tensor]:
    """A copy of the parameters."""
    return {name: value.clone() for name, value in task.module.state_dict().items()}


def launch_toy(directory: Path, n_processes: int, **job: object) -> dict[str, torch.Tensor]:
    """The weights that the main rank of a torchrun launch leaves."""
    directory.mkdir()
    file = directory / "job.json"
    file.write_text(json.dumps({"changes": {}} | job), encoding="utf-8")
    launch("tests.components.shared.training.toy", file, n_processes=n_processes)
    return load_file(directory / "weights.safetensors")


def test_loss_falls_and_the_best_epochs_weights_are_kept(world: World) -> None:
    task, result = toy.train(world, {"epochs": 12})
    scores = [row["score"] for row in result.history]
    assert scores[-1] > scores[0]
    assert task.evaluate()["score"] == pytest.approx(max(scores))
    assert result.best_epoch == scores.index(max(scores)) + 1


def test_equal_seeds_give_identicalweights(world: World) -> None:
    first, second = weights(toy.train(world, {})[0]), weights(toy.train(world, {})[0])
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_micro_batches_give_the_same_weights_as_whole_batches(world: World) -> None:
    whole, split = (
        weights(toy.train(world, {})[0]),
        weights(toy.train(world, {"micro_batch_size": 4})[0]),
    )
    assert all(torch.allclose(whole[name], split[name], atol=1e-6) for name in whole)


def test_out_of_memory_halves_the_micro_batch_and_keeps_the_result(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = weights(toy.train(world, {})[0])
    task, result = toy.train(world, {}, memory=4)
    assert result.micro_batch_size == 4
    assert "micro-batch halved to 8" in capsys.readouterr().out
    assert all(
        torch.allclose(expected[name], value, atol=1e-6) for name, value in weights(task).items()
    )


class _Shrinking(toy.Toy):
    """Memory for `later` samples from step `since` on, as where another process takes its part."""

    since, later = 0, 10**9

    def loss(
        self, model: torch.nn.Module, positions: Positions, batch_slots: Positions, step: int
    ) -> torch.Tensor:
        """As of the toy."""
        if step % 8 >= self.since:  # those of PROFIT's reference steps follow the 8 of the training
            self.memory = self.later
        return super().loss(model, positions, batch_slots, step)


@pytest.mark.parametrize("more", [{}, {"reference_rate": 0.01}], ids=["adamw", "profit"])
def test_one_process_that_runs_out_of_memory_in_a_real_step_goes_on(
    world: World, capsys: pytest.CaptureFixture[str], more: dict[str, object]
) -> None:
    expected = weights(toy.train(world, more)[0])
    task = _Shrinking(world)
    task.since, task.later = 5, 4
    result = fit(task, toy.config(**more), world)
    assert result.micro_batch_size == 4
    assert "out of memory at step 5: micro-batch halved to 4" in capsys.readouterr().out
    assert all(
        torch.allclose(expected[name], value, atol=1e-6) for name, value in weights(task).items()
    )


def test_a_training_that_goes_on_where_less_memory_is_left_probes_again(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = weights(toy.train(world, {})[0])
    place = tmp_path / "x"
    place.mkdir()

    def checkpoints() -> toy.WaitingWriter:
        config, found = LaunchConfig(checkpoint_steps=1), checkpoint_files.newest(place)
        return toy.WaitingWriter(place, config, step="toy", found=found)

    with pytest.raises(ValueError, match="planted"):
        toy.train(world, {}, checkpoints(), fault="raise", at=5)
    task, result = toy.train(world, {}, checkpoints(), memory=4)
    assert result.micro_batch_size == 4
    output = capsys.readouterr().out
    assert "out of memory at step 5: micro-batch halved to 4" in output
    assert "equivalent, not identical: it was trained with micro-batches of 15" in output
    # Only the probe met the end of the memory, and no step of the training.
    assert task.batch_sizes[:3] == [15, 8, 4]
    assert max(task.batch_sizes[3:]) <= 4
    assert all(
        torch.allclose(expected[name], value, atol=1e-6) for name, value in weights(task).items()
    )


def test_a_probe_leaves_memory_for_other_steps(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is held back stands for a twentieth of a GPU: here as much as 5 samples need."""
    held: list[weakref.ref[torch.Tensor]] = []

    def head_room(device: torch.device) -> torch.Tensor:
        tensor = torch.empty(1)
        held.append(weakref.ref(tensor))
        return tensor

    class Filled(toy.Toy):
        def loss(
            self, model: torch.nn.Module, positions: Positions, batch_slots: Positions, step: int
        ) -> torch.Tensor:
            """As of the toy."""
            self.memory = 10 if held and held[-1]() is not None else 15
            return super().loss(model, positions, batch_slots, step)

    monkeypatch.setattr(trainer_module, "head_room", head_room)
    assert fit(Filled(world), toy.config(), world).micro_batch_size == 8
    assert len(held) == 3  # of the first step, of its half, of the second step


def test_a_step_waits_for_the_device_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted are the ways by which values come to the host."""
    trainer = Trainer(toy.Toy(world), toy.config(micro_batch_size=3), world)
    for step in (0, 1):
        trainer.step(step)

    read: list[str] = []
    for name in ("__float__", "__int__", "__bool__", "tolist", "numpy", "cpu"):
        original = getattr(torch.Tensor, name)

        def counted(
            self: torch.Tensor,
            *args: object,
            _name: str = name,
            _original: Callable[..., object] = original,
        ) -> object:
            read.append(_name)
            return _original(self, *args)

        monkeypatch.setattr(torch.Tensor, name, counted)
    trainer.step(2)
    assert read == ["tolist"]


class _Reading(toy.Toy):
    """The toy, whose inputs come from stored images of one pixel, of three numbers."""

    def __init__(self, world: World, **options: Any) -> None:
        super().__init__(world, **options)
        generator = np.random.default_rng(0)
        self.stored = generator.integers(0, 256, (self.n_samples, 1, 1, 3), dtype=np.uint8)
        self.read_positions: list[int] = []
        self.error: OSError | None = None
        self.inputs = torch.from_numpy(self.stored[:, 0, 0]).float().div(255)
        self.targets = self.inputs @ torch.arange(3.0) + 1
        torch.manual_seed(1)
        self.module = torch.nn.Linear(3, 1)
        self.reader = ReadAhead(self._read, 1, world.device)

    def _read(self, positions: Positions, out: Pixels) -> None:
        self.read_positions += positions.tolist()
        if self.error is not None and len(self.read_positions) > 40:
            raise self.error
        out[:] = self.stored[positions]

    def loss(
        self, model: torch.nn.Module, positions: Positions, batch_slots: Positions, step: int
    ) -> torch.Tensor:
        """As of the toy, of what was read."""
        images = self.reader.images(positions)
        assert not (images.numpy() != self.stored[positions]).any()
        return super().loss(model, positions, batch_slots, step)


@pytest.mark.parametrize(
    "changes", [{}, {"micro_batch_size": 4}, {"reference_rate": 0.01}], ids=str
)
def test_each_image_is_read_once_a_step_ahead_of_it(
    world: World, changes: dict[str, object]
) -> None:
    assert isinstance(_Reading(world), ReadingTask)
    task = _Reading(world)
    fit(task, toy.config(**changes), world)
    # 8 steps of 15 images; a probe reads the first micro-batch of two steps, which is kept.
    n_batches = 8 * (2 if "reference_rate" in changes else 1)
    assert n_batches * 15 <= len(task.read_positions) <= n_batches * 15 + 30
    assert not any(thread.name.startswith("read-ahead") for thread in threading.enumerate())


def test_an_error_of_reading_ends_the_step_that_needs_the_images(world: World) -> None:
    task = _Reading(world)
    task.error = OSError(5, "Input/output error")
    with pytest.raises(OSError, match="Input/output error"):
        fit(task, toy.config(), world)
    assert not any(thread.name.startswith("read-ahead") for thread in threading.enumerate())


def test_one_sample_that_does_not_fit_is_a_transient_error(world: World) -> None:
    with pytest.raises(TransientError, match="out of memory at step 0 with one sample"):
        toy.train(world, {}, memory=0)


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(world: World) -> None:
    with pytest.raises(PermanentError, match="loss is not finite at step 3 on rank 0"):
        toy.train(world, {}, fault="nan")


def test_training_stops_after_patience_epochs_without_improvement(world: World) -> None:
    _, result = toy.train(
        world, {"epochs": 30, "learning_rate": 1e-12, "patience": 2, "ema_decay": None}
    )
    assert result.stopped_early
    assert len(result.history) <= 30


class _Planned(toy.Toy):
    """Metrics of the epochs as a test plans them."""

    monitor = "val_select/acc"
    plan: tuple[float, ...] = ()

    def evaluate(self) -> dict[str, float]:
        """Return the planned value of the next epoch."""
        self.epoch = getattr(self, "epoch", -1) + 1
        assert self.monitor is not None
        return {self.monitor: self.plan[min(self.epoch, len(self.plan) - 1)]}


def _fitted(world: World, monitor: str, *plan: float, **changes: object) -> FitResult:
    task = _Planned(world)
    task.monitor, task.plan = monitor, plan
    values: dict[str, object] = {"epochs": 6, "warmup_ratio": 0.0}
    return fit(task, toy.config(**(values | changes)), world)


def test_the_epoch_is_selected_by_the_monitors_direction(world: World) -> None:
    values = (0.5, 0.3, 0.2, 0.4, 0.6, 0.1)
    assert _fitted(world, "val_select/acc", *values).best_epoch == 5
    assert _fitted(world, "val_select/nll", *values).best_epoch == 6


def test_of_equal_epochs_the_latest_is_kept_and_patience_counts_from_the_first(
    world: World,
) -> None:
    """Accuracy while all decisions are of the more frequent class: the same for many epochs."""
    found = _fitted(world, "val_select/acc", 0.8, 0.9, 0.9, 0.9, 0.9, 0.9, patience=3)
    assert (found.best_epoch, len(found.history)) == (5, 5)
    assert found.stopped_early


def test_an_epoch_of_the_warm_up_is_never_the_best(world: World) -> None:
    found = _fitted(world, "val_select/acc", 0.9, 0.9, 0.9, 0.5, 0.6, 0.4, warmup_ratio=0.5)
    assert found.best_epoch == 5
    # A training that ends in its warm-up has its last epoch.
    assert _fitted(world, "val_select/acc", 0.9, 0.5, epochs=2, warmup_ratio=0.99).best_epoch == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_monitor_that_is_not_finite_is_an_error_and_not_the_initial_weights(
    world: World, value: float
) -> None:
    with pytest.raises(PermanentError, match=r"val_select/auroc is (nan|inf) after epoch 2"):
        _fitted(world, "val_select/auroc", 0.5, value)


def test_the_rate_rises_from_above_zero_to_its_peak_and_falls(world: World) -> None:
    changes = {"epochs": 10, "warmup_ratio": 0.2, "learning_rate": 0.1, "global_batch_size": 40}
    _, found = toy.train(world, changes)
    # One step an epoch; a row has the rate of the step after it.
    rates = [row["train/lr"] for row in found.history]
    assert rates[:2] == pytest.approx([0.1 * 2 / 3, 0.1])
    cosine = [0.05 * (1 + math.cos(math.pi * step / 8)) for step in range(1, 9)]
    assert rates[2:] == pytest.approx(cosine, abs=1e-12)

    before = toy.Toy(world).module.state_dict()["weight"]
    once = toy.train(world, changes | {"epochs": 1, "warmup_ratio": 0.9, "ema_decay": None})[0]
    assert not torch.equal(before, once.module.state_dict()["weight"])


def test_two_processes_give_the_weights_of_one(tmp_path: Path, world: World) -> None:
    expected = weights(toy.train(world, {})[0])
    both = launch_toy(tmp_path / "two", 2)
    assert all(torch.allclose(expected[name], both[name], atol=1e-6) for name in expected)


def test_two_processes_agree_when_one_runs_out_of_memory(tmp_path: Path, world: World) -> None:
    expected = weights(toy.train(world, {})[0])
    both = launch_toy(tmp_path / "memory", 2, memory=4)
    assert all(torch.allclose(expected[name], both[name], atol=1e-6) for name in expected)


@pytest.mark.parametrize(
    "failing_pass",
    [("", "forward"), ("", "backward"), ("backward", "forward"), ("forward", "forward")],
    ids="-".join,
)
def test_ranks_may_run_out_of_memory_in_different_passes(
    tmp_path: Path, world: World, failing_pass: tuple[str, str]
) -> None:
    """With a buffer, which DDP would send to the other rank in every forward pass."""
    expected = weights(toy.train(world, {})[0])
    both = launch_toy(tmp_path / "memory", 2, memory=4, failing_pass=failing_pass)
    assert all(
        torch.allclose(expected[name], both[f"inner.{name}"], atol=1e-6) for name in expected
    )


def test_a_rank_that_runs_out_of_memory_before_the_losses_goes_on_in_halves(
    tmp_path: Path, world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    """As a teacher does. The other rank meets it in the collective call that follows."""
    expected = weights(toy.train(world, {})[0])
    both = launch_toy(tmp_path / "begin", 2, part_memory=2)
    assert "out of memory: 2 images at a time from here on" in capfd.readouterr().out
    assert all(torch.allclose(expected[name], both[name], atol=1e-6) for name in expected)


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ("nan", PermanentError, "loss is not finite at step 3 on rank 1"),
        ("raise", TransientError, "rank 1 failed in step 3: ValueError: planted failure"),
    ],
)
def test_a_failing_rank_is_named(
    tmp_path: Path, fault: str, kind: type[StreetVisionError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        launch_toy(tmp_path / fault, 2, fault=fault)

"""The training loop on one and on two processes: equality, agreement on problems, early
stopping.
"""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from components.shared.contracts.errors import PermanentError, StreetVisionError, TransientError
from components.shared.training.launch.torchrun import launch
from components.shared.training.loop.distributed import World
from components.shared.training.session.fit import FitResult, fit
from tests.components.shared.training import toy


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

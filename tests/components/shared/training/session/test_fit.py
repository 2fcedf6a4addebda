"""The training loop on one and on two processes: equality, agreement on problems, early
stopping.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from components.shared.contracts.errors import PermanentError, StreetVisionError, TransientError
from components.shared.training.launch.torchrun import launch
from components.shared.training.loop.distributed import World
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

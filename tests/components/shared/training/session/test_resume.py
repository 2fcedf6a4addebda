"""An interrupted training ends with the very same bits, whatever step it was interrupted at."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from components.shared.contracts.errors import StreetVisionError, TransientError
from components.shared.contracts.options import LaunchConfig
from components.shared.training.checkpoint import files as checkpoint_files
from components.shared.training.checkpoint.writer import CheckpointWriter
from components.shared.training.launch.torchrun import launch
from components.shared.training.loop.distributed import World
from components.shared.training.session.fit import FitResult
from tests.components.shared.training import toy

CHANGES: dict[str, object] = {"epochs": 4, "micro_batch_size": 4, "patience": 3}
N_STEPS = 8


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)


def _checkpoints(place: Path, **changes: object) -> CheckpointWriter:
    config = LaunchConfig.from_mapping({"checkpoint_steps": 1} | changes)
    place.mkdir(exist_ok=True)
    return toy.WaitingWriter(place, config, step="toy", found=checkpoint_files.newest(place))


def bits(task: toy.Toy, result: FitResult) -> tuple[list[bytes], str]:
    """Everything a training ends with, exactly."""
    return [value.numpy().tobytes() for value in task.module.state_dict().values()], repr(result)


@pytest.mark.parametrize(
    ("at", "more"),
    [*((at, {}) for at in range(N_STEPS)), *((at, {"reference_rate": 0.01}) for at in (1, 4))],
)
def test_interrupted_at_any_step_the_result_is_identical(
    world: World, tmp_path: Path, at: int, more: dict[str, object]
) -> None:
    _seed(5)
    changes = CHANGES | more
    expected = bits(*toy.train(world, changes, noise=True))
    for every in (1, 3):
        _seed(5)
        place = tmp_path / str(every)
        first = _checkpoints(place, checkpoint_steps=every)
        with pytest.raises(ValueError, match="planted"):
            toy.train(world, changes, first, fault="raise", at=at, noise=True)
        second = _checkpoints(place)
        steps = [checkpoint_files.read(path).step for path in checkpoint_files.all_of(place)]
        assert steps[-1:] == [at - at % every][: at >= every]
        _seed(6 if at >= every else 5)  # the checkpoint has the generators' states
        assert bits(*toy.train(world, changes, second, noise=True)) == expected


def test_other_kernels_go_on_and_say_so(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "x"
    with pytest.raises(ValueError, match="planted"):
        toy.train(world, CHANGES, _checkpoints(place), fault="raise", at=5)
    toy.train(world, CHANGES | {"attention": "eager"}, _checkpoints(place))
    assert "equivalent, not identical: it was trained with attention=sdpa before" in (
        capsys.readouterr().out
    )


def test_checkpoints_do_not_change_the_result(world: World, tmp_path: Path) -> None:
    plain = bits(*toy.train(world, CHANGES))
    assert bits(*toy.train(world, CHANGES, _checkpoints(tmp_path / "x"))) == plain


def test_the_newest_and_the_first_with_the_best_weights_are_kept(
    world: World, tmp_path: Path
) -> None:
    changes = CHANGES | {"epochs": 6, "patience": None, "learning_rate": 1e-12, "ema_decay": None}
    for at in range(12):
        checkpoints = _checkpoints(tmp_path / "x")
        with pytest.raises(ValueError, match="planted"):
            toy.train(world, changes, checkpoints, fault="raise", at=at)
        checkpoints.close()
    kept = checkpoint_files.all_of(tmp_path / "x")
    states = [checkpoint_files.read(path).document for path in kept]
    assert len(kept) <= 2
    assert states[-1]["step"] == 11
    assert states[0]["best_epoch"] == states[-1]["best_epoch"]


def test_a_damaged_checkpoint_is_named_and_skipped(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "x"
    toy.train(world, CHANGES, _checkpoints(place))
    *_, older, newest = checkpoint_files.all_of(place)
    (newest / "state.safetensors").write_bytes(b"torn")
    assert checkpoint_files.newest(place) == older
    message = capsys.readouterr().out
    assert f"warning: damaged checkpoint skipped: {newest}" in message
    assert "state.safetensors: 4 bytes" in message


def test_time_alone_makes_a_checkpoint_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 399.0, 400.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    checkpoints = _checkpoints(tmp_path / "x", checkpoint_steps=None, checkpoint_seconds=300)
    assert [checkpoints.due(1), checkpoints.due(2)] == [False, True]


@pytest.mark.parametrize("durable", [False, True])
def test_a_full_disk_is_a_warning_or_the_end(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    durable: bool,
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    expected = bits(*toy.train(world, CHANGES))
    monkeypatch.setattr("safetensors.torch.save_file", full)
    checkpoints = _checkpoints(tmp_path / "x", require_durable=durable)
    if durable:
        with pytest.raises(
            TransientError, match=r"step 1 cannot be written.*No space left.*require_durable=true"
        ):
            toy.train(world, CHANGES, checkpoints)
    else:
        assert bits(*toy.train(world, CHANGES, checkpoints)) == expected
        message = "cannot be written to " + str(tmp_path / "x")
        assert message in capsys.readouterr().out
    assert not list((tmp_path / "x").iterdir())


def launch_toy(
    directory: Path, n_processes: int, place: Path, **job: object
) -> dict[str, torch.Tensor]:
    """The weights after a training with checkpoints in `place`, gone on from where one there
    was.
    """
    directory.mkdir()
    place.mkdir(exist_ok=True)
    found = checkpoint_files.newest(place)
    entry = {
        "directory": str(place),
        "step": "toy",
        "found": str(found or ""),
        "remote": None,
        "micro_batch_limit": 0,
    }
    file = directory / "job.json"
    file.write_text(
        json.dumps({"changes": CHANGES, "checkpoints": entry, "noise": True} | job),
        encoding="utf-8",
    )
    launch("tests.components.shared.training.toy", file, n_processes=n_processes)
    return load_file(directory / "weights.safetensors")


def test_two_processes_resume_identically_and_one_goes_on_equivalently(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    expected = launch_toy(tmp_path / "whole", 2, tmp_path / "unused")
    with pytest.raises(StreetVisionError):
        launch_toy(tmp_path / "first", 2, tmp_path / "place", fault="raise", at=5)
    shutil.copytree(tmp_path / "place", tmp_path / "other")
    resumed = launch_toy(tmp_path / "second", 2, tmp_path / "place")
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)
    assert "the result will be identical to an uninterrupted training" in capfd.readouterr().out
    launch_toy(tmp_path / "third", 1, tmp_path / "other")
    message = "equivalent, not identical: it was trained with 2 process(es) on cpu before"
    assert message in capfd.readouterr().out

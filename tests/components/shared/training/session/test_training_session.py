"""Which attempts share checkpoints, and what one leaves for the next."""

import dataclasses
import errno
import fcntl
import json
import os
from pathlib import Path

import pytest

from components.shared.contracts import artifacts
from components.shared.contracts.config import Config, option
from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import (
    ConfigError,
    DataError,
    OvertakenError,
    PermanentError,
    TransientError,
)
from components.shared.contracts.options import LaunchConfig
from components.shared.storage import Store, StoreSettings
from components.shared.training.session import training_session
from components.shared.training.session.training_session import TrainingSession, training_key
from components.train_baseline.config import TrainBaselineConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(LaunchConfig):
    """A phase's configuration."""

    rate: float = option(0.1, "rate")


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path | str]:
    """An artifact, a plain folder, a name."""
    with artifacts.writing(tmp_path / "data", kind="Thing", step="test", config=Config()) as out:
        (out / "a").write_text("a")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/w").write_text("w")
    return {"data": tmp_path / "data", "weights": tmp_path / "weights", "hub": "name"}


def _training(inputs: dict[str, Path | str], tmp_path: Path, **changes: object) -> TrainingSession:
    config = Settings.from_mapping(changes)
    return TrainingSession(config, step="toy", inputs=inputs, beside=tmp_path / "run/checkpoint")


def test_any_changed_input_has_another_key(
    inputs: dict[str, Path | str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [training_key(Settings(), "toy", inputs)]
    keys.append(training_key(Settings(rate=0.2), "toy", inputs))
    keys.append(training_key(Settings(), "other", inputs))
    keys.append(training_key(Settings(), "toy", inputs | {"hub": "other"}))
    (tmp_path / "weights/w").write_text("W")
    keys.append(training_key(Settings(), "toy", inputs))
    with artifacts.writing(tmp_path / "data", kind="Thing", step="test", config=Config()) as out:
        (out / "a").write_text("b")
    keys.append(training_key(Settings(), "toy", inputs))
    monkeypatch.setattr(training_session, "code_version", lambda: "changed")
    keys.append(training_key(Settings(), "toy", inputs))
    assert len(set(keys)) == len(keys)


def test_what_does_not_change_the_model_keeps_the_key(inputs: dict[str, Path | str]) -> None:
    changed = Settings(
        n_processes=2,
        max_restarts=0,
        checkpoint_seconds=7,
        checkpoint_steps=3,
        require_durable=True,
    )
    assert training_key(changed, "toy", inputs) == training_key(Settings(), "toy", inputs)


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"attention": "eager", "compile": "default", "gradient_checkpointing": True}, True),
        ({"precision": "bf16"}, False),
        ({"deterministic": False}, False),
    ],
)
def test_of_the_computation_what_changes_rounding_alone_keeps_the_key(
    inputs: dict[str, Path | str], changes: dict[str, object], same: bool
) -> None:
    keys = [
        training_key(TrainBaselineConfig.from_mapping(values), "toy", inputs)
        for values in ({}, changes)
    ]
    assert (keys[0] == keys[1]) is same


def test_a_profiled_training_goes_on_where_another_was(inputs: dict[str, Path | str]) -> None:
    plain, profiled = (TrainBaselineConfig(profile=profile) for profile in (False, True))
    assert training_key(plain, "s", inputs) == training_key(profiled, "s", inputs)


def test_success_leaves_nothing(inputs: dict[str, Path | str], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with _training(inputs, tmp_path) as training:
        job = training.find_checkpoint()
        (Path(job["directory"]) / "step-000000001").mkdir()
    assert not list((tmp_path / "run").iterdir())


def test_an_interrupted_attempt_leaves_its_checkpoints(
    inputs: dict[str, Path | str], tmp_path: Path
) -> None:
    def interrupted() -> None:
        with _training(inputs, tmp_path) as training:
            job = training.find_checkpoint()
            (Path(job["directory"]) / "step-000000001").mkdir()
            raise TransientError("preempted")

    with pytest.raises(TransientError):
        interrupted()
    assert list((tmp_path / "run/.checkpoints").glob("*/step-000000001"))


def test_a_permanent_error_is_repeated_at_once_and_only_for_the_same_inputs(
    inputs: dict[str, Path | str], tmp_path: Path
) -> None:
    training = _training(inputs, tmp_path)
    training.raise_recorded_failure()

    def failing() -> None:
        with training:
            raise DataError("loss is not finite at step 7")

    with pytest.raises(DataError):
        failing()
    with pytest.raises(
        DataError, match=r"not finite at step 7 \(as before .* delete .*failed\.json"
    ):
        _training(inputs, tmp_path).raise_recorded_failure()
    _training(inputs, tmp_path, rate=0.2).raise_recorded_failure()


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'{"class": "DataError"}',
        b'{"class": 5, "message": "m"}',
        b'{"message": "m"}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_record_of_a_failure_stops_no_training(
    inputs: dict[str, Path | str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    record: bytes,
) -> None:
    training = _training(inputs, tmp_path)
    training.directory.mkdir(parents=True)
    (training.directory / "failed.json").write_bytes(record)
    training.raise_recorded_failure()
    assert "failed.json records no failure" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["PERMANENT_EXIT_CODE", "TransientError", "Path", "Unknown", ""])
def test_a_record_of_no_permanent_error_is_a_plain_permanent_error(
    inputs: dict[str, Path | str], tmp_path: Path, name: str
) -> None:
    training = _training(inputs, tmp_path)
    training.directory.mkdir(parents=True)
    record = json.dumps({"class": name, "message": "m"})
    (training.directory / "failed.json").write_text(record)
    with pytest.raises(PermanentError, match=r"m \(as before") as caught:
        training.raise_recorded_failure()
    assert type(caught.value) is PermanentError


@pytest.mark.parametrize("place", ["/dev/null", "file"])
def test_a_place_for_checkpoints_that_is_no_folder_is_named(
    inputs: dict[str, Path | str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(Variable.CHECKPOINTS, str(tmp_path / place))
    training = _training(inputs, tmp_path)
    training.raise_recorded_failure()
    with (
        pytest.raises(ConfigError, match=r"; set STREETVISION_CHECKPOINTS"),
        training,
    ):
        pass


def test_the_place_can_be_given(
    inputs: dict[str, Path | str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(Variable.CHECKPOINTS, str(tmp_path / "elsewhere"))
    first, second = _training(inputs, tmp_path / "a"), _training(inputs, tmp_path / "b")
    assert first.directory == second.directory
    assert first.directory.parent == tmp_path / "elsewhere"


def test_the_same_training_does_not_run_twice_on_a_machine(
    inputs: dict[str, Path | str], tmp_path: Path
) -> None:
    with (
        _training(inputs, tmp_path),
        pytest.raises(TransientError, match="another process trains this already"),
    ):
        _training(inputs, tmp_path).__enter__()
    with _training(inputs, tmp_path):
        pass


def test_a_file_system_without_locks_is_named(
    inputs: dict[str, Path | str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_locks(stream: object, operation: int) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(fcntl, "flock", without_locks)
    with pytest.raises(
        ConfigError, match=r"no locks \(.*not supported\); set STREETVISION_CHECKPOINTS to a folder"
    ):
        _training(inputs, tmp_path).__enter__()


def test_a_place_that_cannot_be_a_folder_is_named(
    inputs: dict[str, Path | str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(Variable.CHECKPOINTS, "/dev/null")
    with pytest.raises(
        ConfigError, match=r"^/dev/null/.*: Not a directory; set STREETVISION_CHECKPOINTS to a"
    ):
        _training(inputs, tmp_path).__enter__()


def test_durability_needs_a_store(inputs: dict[str, Path | str], tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="require_durable=true needs a store: set STREETVISION_CHECKPOINT_STORE="
    ):
        _training(inputs, tmp_path, require_durable=True)


def test_the_store_knows_the_failure_and_is_left_clean_after_success(
    inputs: dict[str, Path | str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    s3: StoreSettings,
    bucket: str,
) -> None:
    for name, value in s3.to_environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(Variable.CHECKPOINT_STORE, f"s3://{bucket}/trainings")

    def failing() -> None:
        with _training(inputs, tmp_path / "pod1"):
            raise DataError("loss is not finite at step 7")

    with _training(inputs, tmp_path / "pod0", rate=0.5) as training:
        training.find_checkpoint()
        assert len(Store(s3).list(bucket)) == 1  # the pointer
    assert Store(s3).list(bucket) == []
    with pytest.raises(DataError):
        failing()
    with pytest.raises(DataError, match=r"as before .* delete s3://.*failed\.json"):
        _training(inputs, tmp_path / "pod2").raise_recorded_failure()


def test_a_restart_stays_the_owner_and_finds_out_where_another_pod_took_over(
    inputs: dict[str, Path | str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    s3: StoreSettings,
    bucket: str,
) -> None:
    for name, value in (
        s3.to_environment() | {Variable.CHECKPOINT_STORE: f"s3://{bucket}/trainings"}
    ).items():
        monkeypatch.setenv(name, value)
    with _training(inputs, tmp_path / "pod1") as older:
        owners = {older.find_checkpoint()["remote"]["owner"] for _ in range(3)}
        assert len(owners) == 1
        with _training(inputs, tmp_path / "pod2") as newer:
            newer.find_checkpoint()
            with pytest.raises(
                OvertakenError, match="has taken this training over; this attempt stops"
            ):
                older.find_checkpoint()
            newer.find_checkpoint()


@pytest.mark.parametrize("durable", [False, True])
def test_a_store_that_is_away_at_the_start(
    inputs: dict[str, Path | str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    durable: bool,
) -> None:
    nowhere = StoreSettings(endpoint="127.0.0.1:1", access_key="a", secret_key="b", secure=False)
    monkeypatch.setattr(Store, "from_environment", lambda: Store(nowhere, deadline_seconds=0.2))
    monkeypatch.setenv(Variable.CHECKPOINT_STORE, "s3://bucket/trainings")
    training = _training(inputs, tmp_path, require_durable=durable)
    if durable:
        with pytest.raises(TransientError, match=r"cannot read 127\.0\.0\.1:1"):
            training.raise_recorded_failure()
    else:
        training.raise_recorded_failure()
        with training:
            assert training.find_checkpoint()["remote"]["claimed"] is False
        assert "warning: the store does not protect this training yet" in capsys.readouterr().out

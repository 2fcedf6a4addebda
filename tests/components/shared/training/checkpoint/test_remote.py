"""Checkpoints in the store: found by another machine, torn ones skipped, one owner, and faults that
change nothing.
"""

import dataclasses
import json
import shutil
import time
from pathlib import Path

import pytest

from components.shared.contracts.errors import OvertakenError, TransientError
from components.shared.contracts.options import LaunchConfig
from components.shared.storage import Store, StoreSettings
from components.shared.storage.errors import StoreUnavailableError
from components.shared.training.checkpoint import files as checkpoint_files
from components.shared.training.checkpoint.remote import RemoteCheckpoints
from components.shared.training.checkpoint.writer import CheckpointWriter
from components.shared.training.loop.distributed import World
from components.shared.training.loop.state import TrainingState
from tests.components.shared.training import toy
from tests.components.shared.training.session.test_resume import bits
from tests.fault_proxy import fault_proxy

CHANGES: dict[str, object] = {"epochs": 4}
KEY = "0123abcd"


class _Waiting(CheckpointWriter):
    """Training waits until a checkpoint is on disk and in the store."""

    def save(self, state: TrainingState) -> None:
        super().save(state)
        assert self._writer is not None
        self._writer.join()
        assert self._uploads is not None
        self._uploads.wait()


def _remote(settings: StoreSettings, bucket: str, **options: float) -> RemoteCheckpoints:
    return RemoteCheckpoints(Store(settings, **options), f"s3://{bucket}/trainings", KEY)


def _attempt(
    place: Path, remote: RemoteCheckpoints, found: Path | None = None, **changes: object
) -> CheckpointWriter:
    place.mkdir(parents=True, exist_ok=True)
    config = LaunchConfig.from_mapping({"checkpoint_steps": 1} | changes)
    return _Waiting(place, config, step="toy", found=found, remote=remote)


def _interrupted(world: World, checkpoints: CheckpointWriter, at: int) -> None:
    with pytest.raises(ValueError, match="planted"):
        toy.train(world, CHANGES, checkpoints, fault="raise", at=at)


def _keys(settings: StoreSettings, bucket: str) -> list[str]:
    return [item.key for item in Store(settings).list(bucket)]


def test_another_machine_goes_on_and_the_bits_are_the_same(
    world: World, s3: StoreSettings, bucket: str, tmp_path: Path
) -> None:
    expected = bits(*toy.train(world, CHANGES))
    first = _remote(s3, bucket)
    first.claim()
    _interrupted(world, _attempt(tmp_path / "machine1", first), at=5)
    second = _remote(s3, bucket)
    second.claim()
    found = second.fetch(tmp_path / "machine2", newer_than=0)
    assert found is not None
    assert found.name == "step-000000005"
    assert (
        bits(*toy.train(world, CHANGES, _attempt(tmp_path / "machine2", second, found))) == expected
    )
    steps = {key.split("/")[2].split(".")[0] for key in _keys(s3, bucket) if "/step-" in key}
    assert "step-000000008" in steps
    assert len(steps) <= 2
    second.discard()
    assert _keys(s3, bucket) == []


def test_nothing_is_fetched_where_the_local_one_is_as_new(
    world: World, s3: StoreSettings, bucket: str, tmp_path: Path
) -> None:
    remote = _remote(s3, bucket)
    _interrupted(world, _attempt(tmp_path / "a", remote), at=3)
    assert remote.fetch(tmp_path / "b", newer_than=3) is None
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("damage", ["no manifest", "wrong bytes", "file missing"])
def test_a_torn_remote_checkpoint_is_named_and_the_one_before_is_taken(
    world: World,
    s3: StoreSettings,
    bucket: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: str,
) -> None:
    remote = _remote(s3, bucket)
    place = tmp_path / "a"
    _interrupted(world, _attempt(place, remote), at=3)
    later = shutil.copytree(checkpoint_files.all_of(place)[-1], tmp_path / "later/step-000000004")
    remote.upload(later, keep={"step-000000003"})
    prefix = f"trainings/{KEY}/step-000000004.{remote.owner}/"
    store = Store(s3)
    if damage == "no manifest":
        store.delete(bucket, prefix + "manifest.json")
    elif damage == "file missing":
        store.delete(bucket, prefix + "state.safetensors")
    else:
        store.delete(bucket, prefix + "state.json")
        store.put_if_absent(bucket, prefix + "state.json", b"{}")
    found = _remote(s3, bucket).fetch(tmp_path / "b", newer_than=0)
    assert found == tmp_path / "b/step-000000003"
    assert "warning: damaged checkpoint skipped: s3://" in capsys.readouterr().out
    assert [entry.name for entry in (tmp_path / "b").iterdir()] == ["step-000000003"]


def test_of_two_attempts_the_older_one_stops(
    world: World, s3: StoreSettings, bucket: str, tmp_path: Path
) -> None:
    first, second = _remote(s3, bucket), _remote(s3, bucket)
    first.claim()
    checkpoints = _attempt(tmp_path / "a", first)
    _interrupted(world, checkpoints, at=3)
    second.claim()
    path = checkpoint_files.all_of(tmp_path / "a")[-1]
    with pytest.raises(
        OvertakenError, match=f"{second.owner} has taken this training over; this attempt stops"
    ):
        first.upload(path)
    resumed = _attempt(tmp_path / "a", first, path)
    with pytest.raises(TransientError, match="has taken this training over"):
        toy.train(world, CHANGES, resumed)
    second.upload(path)
    first.discard()  # the loser's end does not touch the winner's checkpoints
    assert second.fetch(tmp_path / "b", newer_than=0) is not None


def test_a_store_that_fails_every_fifth_call_changes_nothing(
    world: World, s3: StoreSettings, bucket: str, tmp_path: Path
) -> None:
    expected = bits(*toy.train(world, CHANGES))
    with fault_proxy(s3.endpoint, rate=0.2, stall_seconds=0.05) as proxy:
        remote = _remote(dataclasses.replace(s3, endpoint=proxy.endpoint), bucket)
        remote.claim()
        assert bits(*toy.train(world, CHANGES, _attempt(tmp_path / "a", remote))) == expected
        assert proxy.n_faults > 0
    assert _remote(s3, bucket).fetch(tmp_path / "b", newer_than=7) == tmp_path / "b/step-000000008"


@pytest.mark.parametrize("durable", [False, True])
def test_a_store_that_is_away_is_a_warning_or_the_end(
    world: World,
    s3: StoreSettings,
    bucket: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    durable: bool,
) -> None:
    expected = bits(*toy.train(world, CHANGES))
    with fault_proxy(s3.endpoint, rate=1.0, faults=("error500", "reset_before")) as proxy:
        remote = _remote(
            dataclasses.replace(s3, endpoint=proxy.endpoint), bucket, deadline_seconds=0.3
        )
        with pytest.raises(StoreUnavailableError):
            remote.claim()
        checkpoints = _attempt(tmp_path / "a", remote, require_durable=durable)
        if durable:
            with pytest.raises(
                TransientError, match=r"cannot be stored at s3://.*require_durable=true stops"
            ):
                toy.train(world, CHANGES, checkpoints)
        else:
            assert bits(*toy.train(world, CHANGES, checkpoints)) == expected
            assert "training goes on unprotected" in capsys.readouterr().out


def test_a_store_that_comes_back_protects_again(
    world: World, s3: StoreSettings, bucket: str, tmp_path: Path
) -> None:
    earlier = _remote(s3, bucket)
    earlier.claim()
    remote = _remote(s3, bucket)  # was not able to claim when it began
    _interrupted(world, _attempt(tmp_path / "a", remote), at=2)
    assert _remote(s3, bucket).fetch(tmp_path / "b", newer_than=0) == tmp_path / "b/step-000000002"


def test_training_does_not_wait_for_a_slow_store(
    world: World, s3: StoreSettings, bucket: str, tmp_path: Path
) -> None:
    class Slow(RemoteCheckpoints):
        uploaded = 0

        def upload(self, path: Path, **options: object) -> None:
            time.sleep(0.3)
            self.uploaded += 1

    remote = Slow(Store(s3), f"s3://{bucket}/x", KEY)
    config = LaunchConfig(checkpoint_steps=1)
    (tmp_path / "a").mkdir()
    checkpoints = CheckpointWriter(tmp_path / "a", config, step="toy", remote=remote)
    toy.train(world, {"epochs": 30}, checkpoints)
    assert 1 <= remote.uploaded <= 4  # of up to 60: those that came meanwhile were left out


def test_the_record_of_a_failure_is_found_by_another_machine(
    s3: StoreSettings, bucket: str
) -> None:
    assert _remote(s3, bucket).failure() is None
    _remote(s3, bucket).record_failure({"class": "DataError", "message": "m"})
    record = _remote(s3, bucket).failure()
    assert record is not None
    assert json.loads(record) == {"class": "DataError", "message": "m"}

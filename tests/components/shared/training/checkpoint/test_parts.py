"""Finished parts: another machine has them, damaged ones are computed again, one attempt owns."""

from pathlib import Path

import pytest

from components.shared.contracts.errors import NotDurableError, OvertakenError
from components.shared.contracts.options import LaunchConfig
from components.shared.storage import Store, StoreSettings
from components.shared.training.checkpoint import parts as module
from components.shared.training.checkpoint.parts import FOLDER, Parts
from components.shared.training.checkpoint.remote import RemoteCheckpoints


def _remote(settings: StoreSettings, bucket: str, **options: float) -> RemoteCheckpoints:
    return RemoteCheckpoints(Store(settings, **options), f"s3://{bucket}/trainings", "0123abcd")


def _parts(
    place: Path, remote: RemoteCheckpoints | None = None, *, require_durable: bool = False
) -> Parts:
    config = LaunchConfig(require_durable=require_durable)
    return Parts(place, config, step="toy", remote=remote)


def _write(parts: Parts, name: str, text: str = "values") -> None:
    with parts.writing(name) as out:
        (out / "file").write_text(text)


def _write_half(parts: Parts, name: str) -> None:
    with parts.writing(name) as out:
        (out / "file").write_text("half")
        raise ValueError("planted")


def test_a_part_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    parts = _parts(tmp_path)
    with pytest.raises(ValueError, match="planted"):
        _write_half(parts, "one")
    assert not parts.has("one")
    _write(parts, "one")
    assert parts.has("one")
    assert (parts.path("one") / "file").read_text() == "values"


def test_a_damaged_part_is_removed_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = _parts(tmp_path)
    for name in ("one", "two"):
        _write(parts, name)
    (parts.path("two") / "file").write_text("other")
    module.remove_damaged(tmp_path)
    assert [parts.has(name) for name in ("one", "two")] == [True, False]
    assert "damaged part removed" in capsys.readouterr().out


def test_another_machine_finds_the_parts_and_none_outlives_the_end(
    s3: StoreSettings, bucket: str, tmp_path: Path
) -> None:
    first = _remote(s3, bucket)
    first.claim()
    parts = _parts(tmp_path / "machine1", first)
    for name in ("one", "two"):
        _write(parts, name, name)
    parts.settle()

    second = _remote(s3, bucket)
    second.claim()
    second.fetch_parts(tmp_path / "machine2" / FOLDER)
    found = _parts(tmp_path / "machine2", second)
    assert [(found.path(name) / "file").read_text() for name in ("one", "two")] == ["one", "two"]

    # The first attempt is still alive: it stops at its next part.
    _write(parts, "three")
    with pytest.raises(OvertakenError):
        parts.settle()

    second.discard()
    assert not list(Store(s3).list(bucket))


def test_a_torn_upload_does_not_exist(s3: StoreSettings, bucket: str, tmp_path: Path) -> None:
    remote = _remote(s3, bucket)
    remote.claim()
    parts = _parts(tmp_path / "machine1", remote)
    _write(parts, "one")
    parts.settle()
    for item in list(Store(s3).list(bucket)):
        if item.key.endswith("/manifest.json"):
            Store(s3).delete(bucket, item.key)
    remote.fetch_parts(tmp_path / "machine2" / FOLDER)
    assert not _parts(tmp_path / "machine2").has("one")


def test_without_the_store_the_step_goes_on_or_stops_as_it_was_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = StoreSettings(endpoint="127.0.0.1:9", access_key="a", secret_key="s", secure=False)
    remote = _remote(settings, "none", deadline_seconds=0.3)
    parts = _parts(tmp_path, remote)
    _write(parts, "one")
    parts.settle()
    assert "warning: a finished part cannot be stored" in capsys.readouterr().out

    parts = _parts(tmp_path, remote, require_durable=True)
    _write(parts, "two")
    with pytest.raises(NotDurableError, match="require_durable=true"):
        parts.settle()

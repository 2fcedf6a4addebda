"""Artifact directories: what a reader refuses, and that a failed writer leaves nothing."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from components.shared.contracts import artifacts
from components.shared.contracts.config import Config
from components.shared.contracts.errors import ArtifactError, LeakageViolationError
from tests.components.conftest import TinyRun
from tests.modes import modes


def _write(path: Path, *, split: str | None = "VAL_CALIB") -> None:
    with artifacts.writing(path, kind="Thing", step="test", config=Config(), split=split) as out:
        (out / "a.bin").write_bytes(b"alpha")
        (out / "deep").mkdir()
        (out / "deep" / "b.txt").write_text("beta", encoding="utf-8")


def _edit_manifest(path: Path, **changes: object) -> None:
    document = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(document | changes))


def test_what_was_written_verifies(tmp_path: Path) -> None:
    _write(tmp_path / "x")
    manifest = artifacts.verify_dir(tmp_path / "x", "Thing", split="VAL_CALIB")
    assert sorted(manifest.files) == ["a.bin", "deep/b.txt"]


def test_other_users_can_read_whatever_the_umask_and_the_library(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with artifacts.writing(tmp_path / "x", kind="Thing", step="test", config=Config()) as out:
            (out / "deep").mkdir()
            (out / "deep" / "weights").touch(mode=0o600)
            (out / "tool").touch(mode=0o755)
    finally:
        os.umask(before)
    assert modes(tmp_path / "x") == {
        ".": "755",
        "deep": "755",
        "deep/weights": "644",
        "manifest.json": "644",
        "tool": "644",
    }


def test_other_users_can_read_every_artifact_of_a_pipeline(tiny: TinyRun) -> None:
    """safetensors wrote 0600: a server of another user could not read the bundle's model."""
    paths = [manifest.parent for manifest in tiny.root.rglob("manifest.json")]
    assert {"backbone", "dataset", "checkpoint", "policy", "bundle"} <= {p.name for p in paths}
    found = {f"{path.name}/{name}": mode for path in paths for name, mode in modes(path).items()}
    assert "bundle/model/model.safetensors" in found
    assert set(found.values()) == {"644", "755"}
    assert {name for name, mode in found.items() if mode == "755"} == {
        name for name in found if (tiny.root / name).is_dir()
    }


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    _write(tmp_path / "x")
    _write(tmp_path / "y")
    assert (tmp_path / "x/manifest.json").read_bytes() == (
        tmp_path / "y/manifest.json"
    ).read_bytes()


def test_a_failing_writer_leaves_nothing_and_keeps_the_old_artifact(tmp_path: Path) -> None:
    _write(tmp_path / "x")

    def interrupted() -> None:
        with artifacts.writing(tmp_path / "x", kind="Thing", step="test", config=Config()) as out:
            (out / "half").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]
    artifacts.verify_dir(tmp_path / "x", "Thing", split="VAL_CALIB")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: (p / "a.bin").write_bytes(b"alphA"), "a.bin: sha256"),
        (lambda p: (p / "a.bin").write_bytes(b"alp"), "a.bin: 3 bytes, expected 5"),
        (lambda p: (p / "a.bin").unlink(), "a.bin: missing"),
        (lambda p: (p / "extra").write_bytes(b""), "extra: not in the manifest"),
        (lambda p: (p / "link").symlink_to("a.bin"), "link: symbolic link refused"),
        (lambda p: (p / "manifest.json").unlink(), "no manifest.json"),
        (lambda p: (p / "manifest.json").write_text("{"), "not valid JSON"),
        (lambda p: _edit_manifest(p, schema_version=0), "schema_version is 0, this code reads 1"),
        (lambda p: _edit_manifest(p, split="VAL_TEST"), "edited after it was written"),
        (lambda p: _edit_manifest(p, kind="Other"), "edited after it was written"),
    ],
)
def test_every_damage_is_refused_and_named(
    tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    _write(tmp_path / "x")
    damage(tmp_path / "x")
    with pytest.raises(ArtifactError) as caught:
        artifacts.verify_dir(tmp_path / "x", "Thing", split="VAL_CALIB")
    assert message in str(caught.value)


def test_all_differences_are_listed_in_one_error(tmp_path: Path) -> None:
    _write(tmp_path / "x")
    (tmp_path / "x/a.bin").unlink()
    (tmp_path / "x/deep/b.txt").write_text("BETA")
    (tmp_path / "x/new").write_text("")
    with pytest.raises(
        ArtifactError, match=r"3 difference.*a\.bin: missing; new: not in.*deep/b\.txt: sha256"
    ):
        artifacts.verify_dir(tmp_path / "x", "Thing", split="VAL_CALIB")


def test_another_split_is_a_leak_and_another_kind_an_error(tmp_path: Path) -> None:
    _write(tmp_path / "x", split="VAL_TEST")
    with pytest.raises(
        LeakageViolationError, match="holds split 'VAL_TEST', this step may only see 'VAL_CALIB'"
    ):
        artifacts.verify_dir(tmp_path / "x", "Thing", split="VAL_CALIB")
    with pytest.raises(
        LeakageViolationError, match="holds split 'VAL_TEST', a Thing belongs to none"
    ):
        artifacts.verify_dir(tmp_path / "x", "Thing")
    artifacts.verify_dir(tmp_path / "x", "Thing", split=artifacts.ANY_SPLIT)
    with pytest.raises(ArtifactError, match="kind is 'Thing', this step needs 'Other'"):
        artifacts.verify_dir(tmp_path / "x", "Other")

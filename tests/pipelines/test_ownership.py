"""A folder is left behind when its owner has ended, however that was, and not before."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pipelines.ownership import inheriting, owning, scratch
from pipelines.sources import ROOT

_OWNER = """
import sys, time
from pathlib import Path
from pipelines.ownership import owning, scratch
with {taking} as given:
    print(given, flush=True)
    time.sleep(60)
"""


def _owner(taking: str) -> "subprocess.Popen[str]":
    """Start a process that owns something and waits; it has it when this returns."""
    process = subprocess.Popen(
        [sys.executable, "-c", _OWNER.format(taking=taking)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.given = process.stdout.readline().strip()  # type: ignore[attr-defined]
    return process


def _kill(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


def _is_left(folder: Path) -> bool:
    with inheriting(folder) as is_left:
        return is_left


def test_a_killed_owner_leaves_its_folder_and_a_living_one_does_not(tmp_path: Path) -> None:
    assert not _is_left(tmp_path)  # of nobody that locks
    assert not _is_left(tmp_path / "gone")
    owner = _owner(f"owning(Path({str(tmp_path)!r}))")
    try:
        assert not _is_left(tmp_path)
    finally:
        _kill(owner)
    assert owner.returncode == -signal.SIGKILL
    assert _is_left(tmp_path)


def test_a_process_with_the_descriptor_owns_the_folder_too(tmp_path: Path) -> None:
    with owning(tmp_path) as descriptor:
        heir = subprocess.Popen(["sleep", "60"], pass_fds=(descriptor,))
    try:
        assert not _is_left(tmp_path)
    finally:
        heir.kill()
        heir.wait()
    assert _is_left(tmp_path)


def test_a_linked_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / ".owner").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"), owning(tmp_path):
        pass
    assert not _is_left(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


def test_scratch_removes_itself_and_what_killed_processes_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    killed, alive = _owner("scratch('upload')"), _owner("scratch('run')")
    (tmp_path / "streetvision-of-somebody").mkdir()
    (tmp_path / os.path.basename(killed.given) / "half").write_bytes(b"x")  # type: ignore[attr-defined]  # noqa: PTH119
    _kill(killed)
    try:
        with scratch("run") as folder:
            found = {entry.name for entry in tmp_path.iterdir()}
            living = Path(alive.given).name  # type: ignore[attr-defined]
            assert found == {folder.name, living, "streetvision-of-somebody"}
            assert folder.name.startswith("streetvision-run-")
        assert not folder.exists()
    finally:
        _kill(alive)

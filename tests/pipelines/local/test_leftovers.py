"""What a killed run has left is removed, and nothing of a run that is alive."""

import os
import subprocess
import sys
import time
from pathlib import Path

from pipelines.local.leftovers import remove_leftovers
from pipelines.ownership import owning
from pipelines.sources import ROOT

LEFT = (
    "ingest-dataset/.dataset.work",
    "ingest-dataset/.dataset.partial",
    "export-bundle/.bundle.replaced",
)


def _run(output: Path, name: str) -> Path:
    folder = output / f"streetvision-stage1-{name}"
    for left in LEFT:
        (folder / left / "pixels").mkdir(parents=True)
        (folder / left / "pixels/0").write_bytes(b"x")
    (folder / "ingest-dataset/dataset").mkdir()
    (folder / "ingest-dataset/status.json.tmp").touch()
    return folder


def _left(folder: Path) -> list[str]:
    hidden = [*folder.glob("*/.*"), *folder.glob("*/*.tmp")]
    return sorted(path.relative_to(folder).as_posix() for path in hidden)


def test_only_what_runs_without_a_process_have_left_is_removed(tmp_path: Path) -> None:
    killed, alive, foreign = (_run(tmp_path, name) for name in ("killed", "alive", "foreign"))
    with owning(killed):
        pass
    with owning(alive):
        removed = remove_leftovers(tmp_path)
        assert len(removed) == 4
        assert _left(killed) == []
        assert (killed / "ingest-dataset/dataset").is_dir()
        assert len(_left(alive)) == len(_left(foreign)) == 4
    assert remove_leftovers(tmp_path) != []
    assert _left(alive) == []
    assert len(_left(foreign)) == 4  # no run that knows of locks
    assert remove_leftovers(tmp_path / "absent") == []


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/0.jpg").touch()
    folder = tmp_path / "streetvision-stage1-killed"
    (folder / "step").mkdir(parents=True)
    (folder / "step/.dataset.work").symlink_to(tmp_path / "data")
    with owning(folder):
        pass
    remove_leftovers(tmp_path)
    assert _left(folder) == []
    assert (tmp_path / "data/0.jpg").exists()


def test_half_an_entry_of_the_cache_goes_after_an_hour(tmp_path: Path) -> None:
    (tmp_path / ".cache").mkdir()
    old, new = tmp_path / ".cache/.kfp_cache_a.tmp", tmp_path / ".cache/.kfp_cache_b.tmp"
    for file in (old, new):
        file.touch()
    os.utime(old, (time.time() - 4000, time.time() - 4000))
    assert remove_leftovers(tmp_path) == [old]
    assert new.exists()


def test_make_clean_runs_says_what_it_removes(tmp_path: Path) -> None:
    folder = _run(tmp_path, "killed")
    with owning(folder):
        pass
    done = subprocess.run(
        ["make", "clean-runs", f"OUTPUT={tmp_path}", f"BIN={Path(sys.executable).parent}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"removed {folder}/{LEFT[0]}" in done.stdout.splitlines()
    assert _left(folder) == []

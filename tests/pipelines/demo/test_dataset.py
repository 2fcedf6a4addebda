"""The generated data are reproducible and balanced, and contain exactly the planned faults."""

import csv
import hashlib
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from components.shared.contracts.errors import ConfigError, DataError
from pipelines.demo import N_IMAGES
from pipelines.demo.dataset import BROKEN, COLUMNS, FAULTS, file_bytes, plan, write_demo_data
from pipelines.demo.folder import MARKER
from pipelines.demo.scenes import FRAMES_PER_DRIVE
from pipelines.sources import ROOT

SMALL = 400  # enough for worker processes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "data"
    write_demo_data(path, n_images=SMALL)
    return path


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
    }


def _labels(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_equal_seeds_give_equal_bytes_and_other_seeds_other_images(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_demo_data(tmp_path / name, n_images=40, seed=seed)
    first, again, other = (_digests(tmp_path / name) for name in "abc")
    assert first == again
    assert first["images/drive_000/0000.jpg"] != other["images/drive_000/0000.jpg"]


def test_worker_processes_write_the_same_bytes(folder: Path) -> None:
    rows = plan(SMALL, 0)
    for row in rows[::41]:
        assert (folder / row.path).read_bytes() == file_bytes(row, 0)


def test_every_row_has_its_file_and_all_columns(folder: Path) -> None:
    rows = _labels(folder)
    assert len(rows) == SMALL
    assert tuple(rows[0]) == COLUMNS
    assert sorted(row["path"] for row in rows) == [
        file.relative_to(folder).as_posix() for file in sorted((folder / "images").rglob("*.jpg"))
    ]
    assert {row["group"] for row in rows} == {
        f"drive_{i:03d}" for i in range(SMALL // FRAMES_PER_DRIVE)
    }
    assert len({row["timestamp"] for row in rows}) == SMALL
    assert len({row["recording_day"] for row in rows}) == 6


def test_planted_faults_of_the_full_plan() -> None:
    rows = plan(N_IMAGES, 0)
    contents = Counter(row.content for row in rows)
    broken = sum(contents[content] for content in BROKEN)
    assert all(contents[content] >= 1 for content in FAULTS)
    assert 0 < broken < 0.01 * N_IMAGES
    assert (
        contents["duplicate"],
        contents["conflict"],
        contents["reencoded"],
        contents["unclear"],
    ) == (8, 2, 4, 16)
    assert all((row.label == -1) == (row.content == "unclear") for row in rows)
    roadwork = sum(row.label == 1 for row in rows)
    assert 0.4 < roadwork / N_IMAGES < 0.6
    # Nearly every drive has both classes, so that the camera does not give the answer away.
    n_drives = N_IMAGES // FRAMES_PER_DRIVE
    frames = [row for row in rows if row.content == "frame"]
    mixed = sum(
        {row.label for row in frames if row.drive == drive} == {0, 1} for drive in range(n_drives)
    )
    assert mixed >= 0.95 * n_drives


def test_duplicates_have_equal_bytes_across_drives(folder: Path) -> None:
    rows = plan(SMALL, 0)
    labels = {(row.drive, row.frame): row.label for row in rows}
    path_of = {(row.drive, row.frame): row.path for row in rows}
    copies = [row for row in rows if row.content in ("duplicate", "conflict")]
    assert {row.content for row in copies} == {"duplicate", "conflict"}
    for row in copies:
        assert row.source[0] != row.drive
        assert (folder / row.path).read_bytes() == (folder / path_of[row.source]).read_bytes()
        assert (row.label == labels[row.source]) == (row.content == "duplicate")
    digests = Counter(_digests(folder).values())
    assert sum(count - 1 for count in digests.values()) == len(copies)


@pytest.mark.parametrize("content", FAULTS)
def test_faulty_files_are_faulty_in_their_way(content: str) -> None:
    data = file_bytes(replace(plan(40, 0)[0], content=content), 0)
    if content == "truncated":
        assert data.startswith(b"\xff\xd8")
        assert not data.endswith(b"\xff\xd9")
    else:
        assert data.startswith({"empty": b"", "text": b"<html>", "png": b"\x89PNG"}[content])
        assert (data == b"") == (content == "empty")


def test_planted_broken_files_are_on_disk(folder: Path) -> None:
    broken = [row for row in plan(SMALL, 0) if row.content in BROKEN]
    assert {row.content for row in broken} == {"truncated", "empty"}
    for file in (folder / row.path for row in broken):
        with pytest.raises(OSError, match=r"truncated|cannot identify"), Image.open(file) as image:
            image.load()


def test_all_other_files_are_jpegs_of_one_size(folder: Path) -> None:
    for row in plan(SMALL, 0)[::7]:
        if row.content not in FAULTS:
            with Image.open(folder / row.path) as image:
                assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (320, 224))


def test_a_complete_folder_is_left_alone_and_others_are_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    write_demo_data(folder, n_images=40)
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    write_demo_data(folder, n_images=40)
    assert before == {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    write_demo_data(folder, n_images=41)
    assert len(_labels(folder)) == 41


@pytest.mark.parametrize(
    "damage", ["file missing", "file cut", "marker cut", "marker of other code"]
)
def test_a_half_written_folder_is_written_again(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "data"
    write_demo_data(folder, n_images=40)
    complete = _digests(folder)
    image, marker = folder / "images/drive_001/0007.jpg", folder / MARKER
    if damage == "file missing":
        image.unlink()
    elif damage == "file cut":
        image.write_bytes(image.read_bytes()[:100])
    elif damage == "marker cut":
        marker.write_text("{")
    else:
        marker.write_text(json.dumps(json.loads(marker.read_text()) | {"code": "0"}))
    write_demo_data(folder, n_images=40)
    assert _digests(folder) == complete


def test_an_interrupted_run_leaves_nothing_that_looks_complete(tmp_path: Path) -> None:
    (tmp_path / ".data.partial" / "images").mkdir(parents=True)
    (tmp_path / ".data.partial" / "images" / "old.jpg").write_bytes(b"")
    write_demo_data(tmp_path / "data", n_images=40)
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]
    assert not (tmp_path / "data" / "images" / "old.jpg").exists()


def test_of_two_processes_one_generates_and_both_find_the_same(tmp_path: Path) -> None:
    """Each also leaves alone what the other has staged."""
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from pipelines.demo.folder import publish\n"
        "def write(folder):\n"
        "    for i in range(100):\n"
        "        (folder / str(i)).write_text(sys.argv[2]); time.sleep(0.005)\n"
        "publish(Path(sys.argv[1]), {'seed': 0}, write)\n"
    )
    data = tmp_path / "demo/data"
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(data), name], cwd=ROOT)
        for name in ("first", "second")
    ]
    assert [writer.wait() for writer in writers] == [0, 0]
    contents = {(data / str(i)).read_text() for i in range(100)}
    assert len(contents) == 1
    assert [entry.name for entry in data.parent.iterdir()] == ["data"]


def test_a_folder_of_the_user_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path,label\n")
    with pytest.raises(DataError, match="not generated demo data"):
        write_demo_data(tmp_path, n_images=40)
    assert (tmp_path / "labels.csv").read_text() == "path,label\n"


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="n_images=19"):
        write_demo_data(tmp_path / "data", n_images=19)

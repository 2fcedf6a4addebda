"""The verb `score`: exit codes, the file that it writes, mistakes in one line."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.cli.app import main
from pipelines.sources import ROOT
from tests.components.conftest import write_source


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with four photographs, a copy of one, and a bundle."""
    monkeypatch.chdir(tmp_path)
    write_source(tmp_path / "photos", 4)
    shutil.copytree(ROOT / "tests/golden/schema1/bundle", tmp_path / "BUNDLE")
    return tmp_path


def _code(*arguments: str) -> int:
    try:
        main(["score", *arguments])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_the_file_is_complete_and_the_exit_code_says_whether_all_could_be_read(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _code("BUNDLE", "photos", "-o", "all.parquet") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "table: all.parquet"

    (folder / "photos/bad.jpg").write_bytes(b"no image")
    assert _code("BUNDLE", "photos", "-o", "some.parquet", "--json") == 42
    found = json.loads(capsys.readouterr().out)
    assert (found["path"], found["n_images"], found["n_rejected"]) == ("some.parquet", 6, 1)

    columns = ["path", "decision", "probability", "views", "error"]
    rows = pq.read_table("some.parquet").to_pylist()
    assert list(rows[0]) == columns
    assert rows[0]["error"].startswith("not an image")
    assert rows[1:] == pq.read_table("all.parquet").to_pylist()
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["BUNDLE", "photos", "all.parquet", "some.parquet"]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["BUNDLE", "photos", "-o", "BUNDLE"], "BUNDLE exists; give --output a file that does not"),
        (["BUNDLE", "photos", "-o", "no/s.parquet"], "the folder does not exist; make it first"),
        (["BUNDLE", "nowhere"], "images='nowhere' does not exist"),
        (["BUNDLE", "photos", "--form", "tflite"], "form='tflite' must be"),
        (["photos", "photos"], "manifest.json"),
    ],
)
def test_a_mistake_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert _code(*arguments) == 42
    unsigned = "warning: BUNDLE: is not signed; its sums do not say who made it\n"
    error = capsys.readouterr().err.removeprefix(unsigned)
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error

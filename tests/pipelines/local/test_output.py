"""A folder of runs that cannot be one is refused before anything is made."""

import os
from pathlib import Path

import pytest

from components.shared.contracts.errors import ConfigError
from pipelines.local.output import check_output


def test_an_existing_folder_and_one_to_be_made_are_fine(tmp_path: Path) -> None:
    check_output(tmp_path, ["s3://bucket/data", str(tmp_path / "demo/data")])
    check_output(tmp_path / "a/b/c", [str(tmp_path / "photos")])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("below", ["", "runs"])
def test_a_file_is_refused(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"^--output '.*': .*/file is not a folder$"):
        check_output(tmp_path / "file" / below)


def test_a_device_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^--output '/dev/null': /dev/null is not a folder$"):
        check_output(Path("/dev/null"))


def test_a_folder_that_may_not_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tests may run as root, who may write everywhere: the answer is that of another user."""
    monkeypatch.setattr(os, "access", lambda place, mode: Path(place) != tmp_path)
    with pytest.raises(ConfigError, match=r"^--output '.*/a/runs': .* may not be written$"):
        check_output(tmp_path / "a/runs")


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "a\udcff"])
def test_a_name_that_no_folder_of_runs_can_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"^--output"):
        check_output(tmp_path / name)


def test_circular_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ConfigError, match=r"^--output"):
        check_output(tmp_path / "loop")


@pytest.mark.parametrize("below", ["", "runs", "a/runs"])
def test_a_folder_inside_the_data_is_refused(tmp_path: Path, below: str) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "link").symlink_to("photos")
    for source in (tmp_path / "photos", tmp_path / "link"):
        with pytest.raises(ConfigError, match=r"is inside the data .* choose a folder outside"):
            check_output(tmp_path / "photos" / below, ["s3://bucket/data", str(source)])

"""Files of a model folder are regular and inside it, and messages never name a copy of it."""

import os
from pathlib import Path

import pytest

from components.shared.contracts.errors import ArtifactError, DataError
from components.shared.model_files.reading import read_document, real_file


def test_a_link_inside_the_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"x": 1}')
    (tmp_path / "b.json").symlink_to("a.json")
    assert real_file(tmp_path, "b.json", "model") == (tmp_path / "a.json").resolve()
    assert read_document(tmp_path, "b.json", "model") == {"x": 1}


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "/dev/zero", "loop", "gone"])
def test_other_links_are_refused(target: str, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("{}")
    folder = tmp_path / ".copy.partial"
    folder.mkdir()
    (folder / "loop").symlink_to(target)
    with pytest.raises(ArtifactError, match=r"^model: loop (is a link out|cannot be)") as caught:
        read_document(folder, "loop", "model")
    assert "partial" not in str(caught.value)


def test_special_and_oversized_files_are_refused_unread(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    for name in ("fifo", "folder"):
        with pytest.raises(DataError, match=f"^model: {name} is not a regular file"):
            read_document(tmp_path, name, "model", error=DataError)
    with (tmp_path / "huge").open("wb") as stream:
        stream.truncate(2**40)
    with pytest.raises(DataError, match=r"^model: huge has 1,099,511,627,776 bytes, more than"):
        read_document(tmp_path, "huge", "model", error=DataError)

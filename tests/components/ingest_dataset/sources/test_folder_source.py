"""Trees with one folder per class, on disk."""

import io
from pathlib import Path

import pytest
from PIL import Image

from components.ingest_dataset.sources.config import SourceConfig
from components.ingest_dataset.sources.labels import label_sources
from components.ingest_dataset.sources.open import open_source
from components.ingest_dataset.sources.records import Record
from components.shared.contracts.errors import DataError


def write_tree(root: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        Image.linear_gradient("L").rotate(7 * number).resize((40, 30)).save(buffer, "PNG")
        (root / name).write_bytes(buffer.getvalue())


def records(config: SourceConfig, class_names: tuple[str, ...] | None = None) -> list[Record]:
    source = open_source(config)
    return list(source.records(label_sources([source], class_names).of_sources[0]))


def test_the_folder_is_the_label_and_folders_below_it_an_attribute(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tree(tmp_path, ["Pothole/b.png", "Plain/drive 1/a.png", "Plain/drive 1/c.png"])
    (tmp_path / "Plain/drive 1/camera.json").write_text("{}")
    found = records(SourceConfig(data=str(tmp_path)))
    assert [(r.path, r.label, r.group) for r in found] == [
        ("Plain/drive 1/a.png", "Plain", ""),
        ("Plain/drive 1/c.png", "Plain", ""),
        ("Pothole/b.png", "Pothole", ""),
    ]
    assert [r.attributes for r in found] == [
        {"folder": "drive 1"},
        {"folder": "drive 1"},
        {"folder": ""},
    ]
    assert found[0].read() == (tmp_path / "Plain/drive 1/a.png").read_bytes()
    printed = capsys.readouterr().out
    assert "1 files beside the images are left out: Plain/drive 1/camera.json" in printed
    assert "every image is its own group" in printed

    grouped = records(SourceConfig(data=str(tmp_path), group_column="folder"))
    assert [r.group for r in grouped] == ["drive 1", "drive 1", ""]


def test_the_part_above_the_class_can_be_held_out(tmp_path: Path) -> None:
    write_tree(tmp_path, ["train/Plain/a.png", "train/Pothole/b.png", "test/Plain/c.png"])
    found = {r.path: r for r in records(SourceConfig(data=str(tmp_path)))}
    assert found["test/Plain/c.png"].label == "Plain"
    assert found["test/Plain/c.png"].attributes == {"folder": "", "part": "test"}


def test_folders_follow_label_maps_as_other_labels_do(tmp_path: Path) -> None:
    write_tree(tmp_path, ["street/a.png", "works/b.png", "unclear/c.png"])
    label_map = {"street": "None", "works": "Roadwork", "unclear": "exclude"}
    found = records(SourceConfig(data=str(tmp_path), label_map=label_map))
    assert [(r.path, r.label) for r in found] == [
        ("street/a.png", "None"),
        ("works/b.png", "Roadwork"),
    ]


def test_a_link_to_a_folder_is_no_class_that_is_left_out_without_a_word(tmp_path: Path) -> None:
    write_tree(tmp_path / "data", ["a/1.png", "b/2.png"])
    write_tree(tmp_path / "elsewhere", ["3.png"])
    (tmp_path / "data/c").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="c are links to folders, whose images would be left out"):
        open_source(SourceConfig(data=str(tmp_path / "data")))


def test_a_column_that_folders_do_not_have_is_named(tmp_path: Path) -> None:
    write_tree(tmp_path, ["a/1.png", "b/2.png"])
    with pytest.raises(DataError, match=r"no column 'drive'; columns: folder"):
        open_source(SourceConfig(data=str(tmp_path), group_column="drive"))

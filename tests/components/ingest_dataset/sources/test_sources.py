"""Sources: CSV and Parquet, label maps, what is refused before an image is read."""

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.ingest_dataset.config import IngestConfig
from components.ingest_dataset.sources.config import SourceConfig
from components.ingest_dataset.sources.labels import label_sources
from components.ingest_dataset.sources.open import open_source
from components.ingest_dataset.sources.records import Record
from components.ingest_dataset.step import run as ingest
from components.shared.contracts.errors import ConfigError, DataError
from components.shared.data.dataset import Dataset
from components.shared.data.files import files_at
from components.shared.storage import Store, StoreSettings
from components.shared.storage.errors import StoreConflictError

CLASSES = ("None", "Roadwork")


def labelled(config: SourceConfig, class_names: tuple[str, ...] | None = None) -> list[Record]:
    """The records of one source."""
    source = open_source(config)
    return list(source.records(label_sources([source], class_names).of_sources[0]))


def jpeg(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").rotate(shade * 7).convert("RGB").resize((64 + shade, 48)).save(
        buffer, "JPEG"
    )
    return buffer.getvalue()


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def parquet_rows(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [
        {
            "image": {"bytes": jpeg(i), "path": f"{i}.jpg"},
            "label": i % 2,
            "video_info": {"vid_id": f"video{i // 3}", "frame": i},
            "tags": ["a", "b"],
        }
        for i in range(first, first + count)
    ]


def write_folder(folder: Path, labels: list[str], first: int = 0) -> None:
    folder.mkdir()
    lines = ["path,label,place"]
    for number, label in enumerate(labels, start=first):
        (folder / f"{number}.jpg").write_bytes(jpeg(number))
        lines.append(f"{number}.jpg,{label},p{number // 2}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_parquet_in_the_hugging_face_layout(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data/train-00000.parquet", parquet_rows(8))
    write_parquet(tmp_path / "data/train-00001.parquet", parquet_rows(4, first=8))
    records = labelled(
        SourceConfig(data=str(tmp_path / "data"), group_column="video_info.vid_id"), CLASSES
    )
    assert len(records) == 12
    assert [record.path for record in records] == [f"{i}.jpg" for i in range(12)]
    assert [record.label for record in records] == ["None", "Roadwork"] * 6
    assert records[4].group == "video1"
    assert records[4].attributes["video_info.frame"] == "4"
    assert records[9].read() == jpeg(9)


def test_a_single_parquet_file_with_excluded_rows(tmp_path: Path) -> None:
    write_parquet(
        tmp_path / "one.parquet",
        [{**row, "label": -1 if i == 2 else i % 2} for i, row in enumerate(parquet_rows(4))],
    )
    records = labelled(SourceConfig(data=str(tmp_path / "one.parquet")))
    assert [record.path for record in records] == ["0.jpg", "1.jpg", "3.jpg"]


def test_fused_sources_keep_their_label_maps_and_provenance(tmp_path: Path) -> None:
    write_folder(tmp_path / "natix", ["0", "1", "1", "-1"])
    write_folder(tmp_path / "own", ["street", "works", "street"], first=10)
    extra = (
        '[{"data": "%s", "label_map": {"street": "None", "works": "Roadwork"}, "group_column":'
        ' "place"}]'
    )
    config = IngestConfig(
        data=str(tmp_path / "natix"),
        extra_sources=extra % (tmp_path / "own"),
        image_size=32,
        near_duplicate_distance=0,
    )
    ingest(config, dataset=tmp_path / "dataset")
    samples = {(s.source, s.path): s for s in Dataset.open(tmp_path / "dataset").samples}
    assert {key: sample.label for key, sample in samples.items()} == {
        ("natix", "0.jpg"): 0,
        ("natix", "1.jpg"): 1,
        ("natix", "2.jpg"): 1,
        ("own", "10.jpg"): 0,
        ("own", "11.jpg"): 1,
        ("own", "12.jpg"): 0,
    }
    assert samples["own", "11.jpg"].group == samples["own", "10.jpg"].group == "p5"


def test_two_sources_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"source names .'photos'. occur twice; give each entry"):
        IngestConfig(data="a/photos", extra_sources='[{"data": "b/photos"}]')


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"picture": {"bytes": b"x"}, "label": 0}],
            "column 'image' must be a struct with 'bytes'",
        ),
        ([{"image": b"x", "label": 0}], "column 'image' must be a struct with 'bytes'"),
        ([{"image": {"bytes": b"x"}, "target": 0}], "no column 'label'"),
        (
            [{"image": {"bytes": b"x"}, "label": 3}],
            "row 1: label '3' is in neither label_map nor class_names",
        ),
        ([{"image": {"bytes": b"x"}, "label": -1}], "no rows are left"),
    ],
)
def test_wrong_parquet_is_named(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    write_parquet(tmp_path / "data/x.parquet", rows)
    with pytest.raises(DataError, match=message):
        labelled(SourceConfig(data=str(tmp_path / "data")), CLASSES)


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 but nothing else")
    with pytest.raises(DataError, match=r"broken\.parquet: not a readable Parquet file"):
        labelled(SourceConfig(data=str(tmp_path / "broken.parquet")), CLASSES)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"path,label\na.jpg;0\n", "line 2 has 1 fields, expected 2"),
        (b"path;label\na.jpg;0\n", "columns are separated by ';'; save it with commas"),
        (b"path,label,label\na.jpg,0,1\n", "columns .'label'. occur twice"),
        (b"path,label\n\xff\xfe.jpg,0\n", "not UTF-8"),
        (b"", "empty file, no rows"),
        (b"path,label\na.jpg,-1\n", "no rows are left, label_map excludes all 1"),
        (b"path,label\na\\b.jpg,0\n", "has a backslash; use '/'"),
        (b'path,label\n"a.jpg,0\n', "not a valid CSV"),
    ],
)
def test_wrong_csv_is_named(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "labels.csv").write_bytes(data)
    with pytest.raises(DataError, match=message):
        labelled(SourceConfig(data=str(tmp_path)), CLASSES)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"data": "nowhere"}, "data='nowhere' does not exist"),
        ({"csv": "other.csv"}, "has labels.csv but no other.csv; name the table"),
        ({"group_column": "drive"}, "no column 'drive'"),
        ({"timestamp_column": "time"}, "no column 'time'"),
    ],
)
def test_a_wrong_place_or_column_is_named(
    tmp_path: Path, values: dict[str, str], message: str
) -> None:
    write_folder(tmp_path / "data", ["0", "1"])
    with pytest.raises(DataError, match=message):
        labelled(SourceConfig(**{"data": str(tmp_path / "data"), **values}), CLASSES)


def test_an_object_that_is_replaced_after_the_listing_is_not_read(
    s3: StoreSettings, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run's cache key was made from the listed ETags and sizes."""
    for name, value in s3.to_environment().items():
        monkeypatch.setenv(name, value)
    (tmp_path / "x").write_bytes(b"listed")
    Store(s3).put(bucket, "photos/x", tmp_path / "x")

    files = files_at(f"s3://{bucket}/photos")
    assert files.read("x") == b"listed"
    (tmp_path / "x").write_bytes(b"replaced")
    Store(s3).put(bucket, "photos/x", tmp_path / "x")
    with pytest.raises(StoreConflictError, match="photos/x"):
        files.read("x")

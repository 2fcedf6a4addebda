"""Sources of data as an attacker, or a bad day, would make them.

Every one ends in a data set that reads back, with rejects, or in one typed line of bounded length.
Cases of which the right answer is a whole are in the tests of the sources.
"""

import csv
import datetime
import io
import json
import os
import re
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.ingest_dataset.config import IngestConfig
from components.ingest_dataset.step import run as ingest
from components.shared.contracts.errors import DataError, one_line
from components.shared.data.dataset import Dataset
from tests.hostile_files import HOSTILE, without_root_rights

N_IMAGES = 6
GOOD = "path,label,group\n" + "".join(f"{i}.jpg,{i % 2},g{i}\n" for i in range(N_IMAGES))
LONGEST_LINE = 4500


def jpeg(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    data.mkdir()
    for number in range(N_IMAGES):
        (data / f"{number}.jpg").write_bytes(jpeg(number))
    return data


def ingested(folder: Path, **options: Any) -> Dataset:
    """The data set of a source, opened again."""
    out = folder.parent / "out" / "dataset"
    config = {"max_reject_fraction": 0.5, "image_size": 32, "near_duplicate_distance": 0} | options
    ingest(IngestConfig(data=str(folder), **config), dataset=out)
    data = Dataset.open(out)
    data.duplicate_pairs()
    return data


def rejects(data: Dataset) -> dict[str, str]:
    with (data.path / "rejects.csv").open(newline="", encoding="utf-8") as stream:
        return {row["path"]: row["reason"] for row in csv.DictReader(stream)}


def write_csv(folder: Path, text: str | bytes) -> None:
    (folder / "labels.csv").write_bytes(text if isinstance(text, bytes) else text.encode())


# --- Texts of a CSV


@pytest.mark.parametrize("column", ["path", "group", "note"])
@pytest.mark.parametrize("text", ["a\rb", "\r", "a\nb", "a\r\nb", 'a"b', "a\0b", "x" * 200_000])
def test_any_text_of_a_csv_reads_back(folder: Path, column: str, text: str) -> None:
    """A lone carriage return, and a text of more than 131,072 characters, made it unreadable."""
    rows = [{"path": f"{i}.jpg", "label": i % 2, "group": f"g{i}", "note": "n"} for i in range(4)]
    if column == "path":
        if "\0" in text or len(text) > 250:
            return  # no name of a file
        (folder / "0.jpg").rename(folder / text)
    rows[0][column] = text
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)

    samples = {sample.path: sample for sample in ingested(folder).samples}
    sample = samples[str(rows[0]["path"])]
    found = {"path": sample.path, "group": sample.group, "note": sample.attributes["note"]}
    assert found[column] == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label,group\n\n\n0.jpg,7,g\n1.jpg,0,g\n", "line 4: label '7'"),
        ('path,label,group\n0.jpg,1,"a\nb\nc"\n1.jpg,7,g\n', "line 5: label '7'"),
        ('path,label\n0.jpg,1\n\n"1.jpg,2\n', "not a valid CSV .line 4"),
        ("path,label\n\n0.jpg,1\n\n../1.jpg,0\n", "line 5: path '../1.jpg' leaves"),
        ("path,label\n0.jpg,1\n\n0.jpg,0\n", "line 4: path '0.jpg' was listed in line 2"),
        ("path,label\n0.jpg,1,\n1.jpg,1\n", "line 2 has 3 fields, expected 2"),
        ("path,label\n0.jpg," + "x" * 1_100_000 + "\n", "not a valid CSV .line 2: field larger"),
        ("\x1b[31m,label\n0.jpg,1\n", "no column 'path'"),
    ],
)
def test_messages_about_a_csv_have_the_lines_of_the_file(
    folder: Path, text: str, message: str
) -> None:
    write_csv(folder, text)
    with pytest.raises(DataError, match=message) as caught:
        ingested(folder)
    assert len(one_line(caught.value)) < LONGEST_LINE
    assert one_line(caught.value).isprintable()


def test_the_time_for_a_wide_table_is_linear_in_its_columns(folder: Path) -> None:
    """20,000 columns took 13 s."""
    columns = [f"c{number}" for number in range(20_000)]
    write_csv(
        folder,
        f"path,label,{','.join(columns)}\n0.jpg,1,{'x,' * 19_999}x\n1.jpg,0,{'y,' * 19_999}y\n",
    )
    start = time.process_time()
    assert len(ingested(folder).samples) == 2
    assert time.process_time() - start < 5


def test_what_comes_from_a_csv_does_not_act_on_a_terminal_or_a_spreadsheet(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forged = "x\n22:00:00.000 - INFO - Task 'evaluate' finished with status SUCCESS"
    escape, formula = "\x1b]0;pwned\x07\x1b[31m0.jpg", "=cmd|'/c calc'!A0"
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = [(forged, 0), (escape, 1), (formula, 1), ("1.jpg", 1), ("2.jpg", 0), ("3.jpg", 0)]
        csv.writer(stream).writerows([("path", "label"), *rows])
    data = ingested(folder)

    printed = capsys.readouterr()
    assert all(line.isprintable() for line in printed.out.splitlines())
    assert not re.search(r"^22:00", printed.out + printed.err, re.MULTILINE)
    table = (data.path / "rejects.csv").read_text(encoding="utf-8")
    assert all(line.isprintable() for line in table.splitlines())
    assert len(rejects(data)) == 3
    assert f"'{formula}" in rejects(data)


def test_messages_name_twenty_of_many(folder: Path) -> None:
    """300,000 missing images were one line of 19 MB, label_column=path one of 28 MB."""
    rows = "".join(f"missing/{i}.jpg,{i % 2}\n" for i in range(5000))
    write_csv(folder, "path,label\n" + rows)
    with pytest.raises(DataError, match="5000 of 5000 images are unusable") as caught:
        ingested(folder)
    assert len(str(caught.value)) < LONGEST_LINE

    start = time.process_time()
    with pytest.raises(DataError, match="and 4980 more") as caught:
        ingested(folder, label_column="path", class_names=("None", "Roadwork"))
    assert len(str(caught.value)) < LONGEST_LINE
    assert time.process_time() - start < 5


# --- Files


@pytest.mark.parametrize("kind", sorted(HOSTILE))
def test_one_hostile_file_is_a_reject_and_costs_the_others_nothing(folder: Path, kind: str) -> None:
    make, reason = HOSTILE[kind]
    (folder / "0.jpg").unlink()
    name = make(folder / "0.jpg").relative_to(folder).as_posix()
    write_csv(folder, GOOD.replace("0.jpg", name))
    data = ingested(folder)

    assert len(data.samples) == N_IMAGES - 1
    (found,) = rejects(data).items()
    assert found[0] == name
    # Without the right to make a device there is a link to one.
    expected = {"missing": "file does not exist", "endless": f"{reason}|link out of the source"}
    assert re.search(expected.get(kind, reason), found[1])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 8 << 20  # KiB


def test_unreadable_files_and_folders_are_rejects(folder: Path) -> None:
    (folder / "closed").mkdir()
    (folder / "1.jpg").rename(folder / "closed/1.jpg")
    write_csv(folder, GOOD.replace("1.jpg", "closed/1.jpg"))
    (folder / "0.jpg").chmod(0)
    (folder / "closed").chmod(0)
    try:
        with without_root_rights():
            data = ingested(folder)
    finally:
        (folder / "closed").chmod(0o755)
    assert rejects(data) == {"0.jpg": "Permission denied", "closed/1.jpg": "Permission denied"}


def _closed(file: Path) -> None:
    file.write_text(GOOD)
    file.chmod(0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_closed, r"labels.csv: Permission denied"),
        (lambda file: file.symlink_to("labels.csv"), r"labels.csv: Too many levels of symbolic"),
        (os.mkfifo, r"labels.csv: not a regular file \(a pipe\)"),
        (lambda file: file.symlink_to("/dev/zero"), r"labels.csv: symbolic link out of the source"),
        (
            lambda file: file.symlink_to("/etc/passwd"),
            "labels.csv: symbolic link out of the source",
        ),
        (lambda file: file.mkdir(), "holds neither labels.csv nor Parquet"),
    ],
)
def test_a_table_that_cannot_be_read_is_named(
    folder: Path, make: Callable[[Path], None], message: str
) -> None:
    make(folder / "labels.csv")
    with without_root_rights(), pytest.raises(DataError, match=message):
        ingested(folder)


def test_a_folder_that_cannot_be_read_is_named(folder: Path, tmp_path: Path) -> None:
    write_csv(folder, GOOD)
    (tmp_path / "loop").symlink_to("loop")
    cases = [
        (tmp_path / "loop", "loop' cannot be read .Too many levels"),
        (tmp_path / ("x" * 5000), "cannot be read .File name too long"),
        (tmp_path / "nothing", "does not exist"),
        (Path("/dev/null"), "is a file but not .parquet"),
    ]
    for place, message in cases:
        with pytest.raises(DataError, match=message) as caught:
            ingested(place)
        assert len(str(caught.value)) < 600

    folder.chmod(0)
    try:
        with without_root_rights(), pytest.raises(DataError, match=r"may not be listed .Permi"):
            ingested(folder)
    finally:
        folder.chmod(0o755)


def test_a_tree_of_folders_leaves_no_unreadable_class_out(tmp_path: Path) -> None:
    for number in range(6):
        file = tmp_path / "data" / ("a", "b", "c")[number % 3] / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(jpeg(number))
    (tmp_path / "data/c").chmod(0)
    try:
        with without_root_rights(), pytest.raises(DataError, match="c may not be listed"):
            ingested(tmp_path / "data")
    finally:
        (tmp_path / "data/c").chmod(0o755)
    assert len(ingested(tmp_path / "data").samples) == 6


def test_names_that_are_no_text(tmp_path: Path) -> None:
    for number in range(4):
        file = tmp_path / "data" / ("a", "b")[number % 2] / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(jpeg(number))
    odd = Path(os.fsdecode(os.fsencode(tmp_path / "data/a") + b"/\xff.jpg"))
    odd.write_bytes(jpeg(9))
    data = ingested(tmp_path / "data")
    assert rejects(data) == {r"a/\udcff.jpg": "the name is not UTF-8; rename the file"}

    odd.rename(odd.with_name("4.jpg"))
    (tmp_path / "data/a").rename(Path(os.fsdecode(os.fsencode(tmp_path / "data") + b"/\xff")))
    with pytest.raises(DataError, match="names of folders are not UTF-8"):
        ingested(tmp_path / "data")


# --- Labels


def test_none_is_what_the_map_says(folder: Path) -> None:
    """What str(None) writes for a missing label counted as the class of that name."""
    write_csv(folder, GOOD.replace("1.jpg,1", "1.jpg,None"))
    with pytest.raises(
        DataError, match="line 3: label 'None' is in neither label_map nor class_names, and may"
    ):
        ingested(folder)
    with pytest.raises(DataError, match="label 'None' is in neither label_map"):
        ingested(folder, label_map={"0": "None", "1": "Roadwork"})

    by_map = {"0": "None", "1": "Roadwork", "None": "exclude"}
    assert len(ingested(folder, label_map=by_map).samples) == N_IMAGES - 1

    # Among names it is one: the two of NATIX.
    write_csv(folder, GOOD.replace(",0,", ",None,").replace(",1,", ",Roadwork,"))
    assert len(ingested(folder).samples) == N_IMAGES


@pytest.mark.parametrize("text", ["nan", "NaN", "NaT", "<NA>"])
def test_a_missing_label_is_no_class_of_that_name(folder: Path, text: str) -> None:
    """As pandas writes it. It was a class beside other names, and beside 0.0 and 1.0."""
    write_csv(
        folder, GOOD.replace(",0,", ",free,").replace(",1,", ",hole,").replace("hole", text, 1)
    )
    with pytest.raises(DataError, match=f"line 3: label '{text}' is in neither label_map"):
        ingested(folder)
    assert len(ingested(folder, class_names=("free", "hole", text)).samples) == N_IMAGES

    write_csv(folder, GOOD.replace(",0,", ",0.0,").replace(",1,", ",1.0,").replace("1.0", text, 1))
    with pytest.raises(DataError, match=r"the labels 0.0, 1.0 are numbers without names"):
        ingested(folder)


# --- Parquet

IMAGES = [{"bytes": jpeg(i), "path": f"{i}.jpg"} for i in range(N_IMAGES)]
LABELS = ["0", "1"] * (N_IMAGES // 2)
_LATIN = pa.Array.from_buffers(pa.string(), N_IMAGES, pa.array([b"\xff"] * N_IMAGES).buffers())


def parquet(folder: Path, columns: dict[str, Any]) -> Path:
    for file in folder.iterdir():
        file.unlink()
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    pq.write_table(table, folder / "x.parquet")
    return folder


@pytest.mark.parametrize("missing", [None, {"bytes": None, "path": "0.jpg"}])
def test_a_row_without_an_image_is_a_reject(folder: Path, missing: Any) -> None:
    columns = {"image": [missing, *IMAGES[1:]], "label": LABELS, "group": ["g"] * N_IMAGES}
    data = ingested(parquet(folder, columns))
    assert len(data.samples) == N_IMAGES - 1
    assert list(rejects(data).values()) == ["the Parquet row has no image"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": [{"bytes": [1, 2], "path": "a"}] * N_IMAGES}, "'image.bytes' is list"),
        ({"image": [{"bytes": "abc", "path": "a"}] * N_IMAGES}, "'image.bytes' is string, must be"),
        ({"image": [{"bytes": 5, "path": "a"}] * N_IMAGES}, "'image.bytes' is int64"),
        ({"image": [x | {"path": b"\xff"} for x in IMAGES]}, "'image.path' is binary"),
        ({"label": [["0"], ["1"]] * 3}, "column 'label' is list"),
        ({"label": [b"0", b"1"] * 3}, "column 'label' is binary, must be text"),
        ({"label": [{"x": 0}, {"x": 1}] * 3}, "no column 'label'; did you mean 'label.x'"),
        ({"label": _LATIN}, "column 'label' has a value that cannot be read"),
        ({"group": [["a"]] * N_IMAGES}, "column 'group' is list"),
        ({"group": [b"a"] * N_IMAGES}, "column 'group' is binary"),
        ({"note": _LATIN}, "column 'note' has a value that cannot be read"),
        ({"note": pa.array([2**30] * 6, pa.date32())}, "column 'note' has a value that cannot be"),
        ({"note": pa.array([2**62] * 6, pa.duration("s"))}, "column 'note' has a value that canno"),
        ({"note": pa.array([2**62] * 6, pa.timestamp("us"))}, "column 'note' has a value that can"),
        ({"note": ["x" * 1_100_000] * N_IMAGES}, "column 'note' has a text of 1,100,000 charact"),
    ],
)
def test_odd_columns_of_parquet_are_refused_by_name(
    folder: Path, columns: dict[str, Any], message: str
) -> None:
    whole = {"image": IMAGES, "label": LABELS, "group": [f"g{i}" for i in range(N_IMAGES)]}
    with pytest.raises(DataError, match=message) as caught:
        ingested(parquet(folder, whole | columns))
    assert "x.parquet" in str(caught.value)
    assert len(one_line(caught.value)) < LONGEST_LINE


def test_doubled_columns_of_parquet_are_refused(folder: Path) -> None:
    arrays = [pa.array(IMAGES), pa.array(LABELS), pa.array(LABELS)]
    table = pa.Table.from_arrays(arrays, names=["image", "label", "label"])
    with pytest.raises(DataError, match="columns 'label' occur twice"):
        ingested(parquet(folder, table))


@pytest.mark.parametrize("group", [None, [None] * N_IMAGES])
def test_parquet_without_groups_says_so(
    folder: Path, group: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every image was its own group without a word: so a drive crosses the splits."""
    columns = {"image": IMAGES, "label": LABELS} | ({"group": group} if group else {})
    assert len({sample.group for sample in ingested(parquet(folder, columns)).samples}) == N_IMAGES
    said = capsys.readouterr().out
    assert "no column 'group', every image is its own group (in x.parquet)" in said


@pytest.mark.parametrize("text", ["a\rb", "a\0b", "x" * 200_000])
def test_any_text_of_parquet_reads_back(folder: Path, text: str) -> None:
    columns = {
        "image": IMAGES,
        "label": LABELS,
        "group": [f"{text}{i}" for i in range(N_IMAGES)],
        "note": [text] * N_IMAGES,
        "when": [datetime.date(2024, 1, 1)] * N_IMAGES,
    }
    samples = ingested(parquet(folder, columns)).samples
    assert {sample.group for sample in samples} == {f"{text}{i}" for i in range(N_IMAGES)}
    assert {sample.attributes["note"] for sample in samples} == {text}
    assert {sample.attributes["when"] for sample in samples} == {"2024-01-01"}


@pytest.mark.parametrize(
    "features",
    [
        "[" * 100_000,
        '{"info": {"features": {"label": {"names": "ab", "_type": "ClassLabel"}}}}',
        '{"info": {"features": {"label": {"names": [1, 2], "_type": "ClassLabel"}}}}',
        '{"info": {"features": {"label": 5}}}',
        json.dumps({"info": []}),
        "\xff",
    ],
)
def test_features_that_are_none_name_no_class(folder: Path, features: str) -> None:
    table = pa.table({"image": IMAGES, "label": [0, 1] * 3, "group": LABELS})
    table = table.replace_schema_metadata({b"huggingface": features.encode("latin-1")})
    assert ingested(parquet(folder, table)).class_names == ("None", "Roadwork")


@pytest.mark.parametrize("kind", ["pipe", "self-linked", "folder", "endless"])
def test_a_hostile_parquet_file_is_named(folder: Path, kind: str) -> None:
    for file in folder.iterdir():
        file.unlink()
    HOSTILE[kind][0](folder / "x.parquet")
    with pytest.raises(DataError, match=r"x.parquet|holds neither"):
        ingested(folder)

"""From labels to classes: what is taken from the data, what is refused, what is never inverted."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.ingest_dataset.sources.config import SourceConfig
from components.ingest_dataset.sources.labels import Labelling, label_sources
from components.ingest_dataset.sources.open import open_source
from components.ingest_dataset.sources.records import Label, LabelTable, Source
from components.shared.contracts.errors import DataError


def source(
    labels: list[str], label_map: dict[str, str] | None = None, *, folders: bool = False
) -> Source:
    """A source of these labels, one row each."""
    table = LabelTable(
        "photos/labels.csv", [Label(text) for text in labels], numbers=range(2, len(labels) + 2)
    )
    return Source("photos", label_map, [table], lambda classes: iter(()), named_by_folder=folders)


def meaning(found: Labelling, number: int = 0) -> dict[str, str]:
    return {str(label): name for label, name in found.of_sources[number].items()}


def write_hf_parquet(path: Path, labels: list[int | None], names: list[str]) -> None:
    """Write labels as `datasets` 5.2.0 does: its features are JSON in the schema's metadata."""
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    rows = [
        {"image": {"bytes": b"%d" % i, "path": f"{i}.jpg"}, "label": label}
        for i, label in enumerate(labels)
    ]
    table = pa.Table.from_pylist(rows).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )
    pq.write_table(table, path)


def parquet(path: Path, labels: list[int | None], names: list[str], **options: Any) -> Source:
    write_hf_parquet(path, labels, names)
    return open_source(SourceConfig(data=str(path), **options))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["0", "1", "-1"], {"0": "None", "1": "Roadwork", "-1": "exclude"}),
        (["None", "Roadwork"], {"None": "None", "Roadwork": "Roadwork"}),
        (["0", "Roadwork"], {"0": "None", "Roadwork": "Roadwork"}),
    ],
)
def test_the_networks_labels_need_no_parameter(labels: list[str], expected: dict[str, str]) -> None:
    found = label_sources([source(labels)], None)
    assert found.class_names == ("None", "Roadwork")
    assert found.origin == "the default"
    assert meaning(found) == expected


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["Pothole", "Plain", "Plain"], ("Plain", "Pothole")),
        (["b", "c", "a", "-1"], ("a", "b", "c")),
        (["100", "30", "stop"], ("30", "100", "stop")),
        (["None", "crack", "pothole"], ("None", "crack", "pothole")),
        (["True", "False"], ("False", "True")),
    ],
)
def test_own_class_names_need_no_parameter_and_are_sorted(
    labels: list[str], names: tuple[str, ...]
) -> None:
    for order in (labels, labels[::-1]):
        found = label_sources([source(order)], None)
        assert found.class_names == names
        assert meaning(found) == {x: "exclude" if x == "-1" else x for x in labels}


@pytest.mark.parametrize(
    ("labels", "wrong"),
    [
        (["None", "Roadwork", "Roadwrok"], "row 4: label 'Roadwrok'"),
        (["0", "1", "7"], "row 4: label '7'"),
        (["None", "roadwork"], "row 3: label 'roadwork'"),
        (["Plain", "Pothole", ""], "row 4: label ''"),
        (["0", "1", "nan", "nan"], "rows 4, 5: label 'nan'"),
    ],
)
def test_a_misspelt_or_missing_label_is_no_further_class(labels: list[str], wrong: str) -> None:
    with pytest.raises(DataError) as caught:
        label_sources([source(labels)], None)
    assert f"{wrong} is in neither label_map nor class_names" in str(caught.value)
    assert "set class_names to all classes of the data" in str(caught.value)


def test_class_names_alone_make_a_further_label_a_class() -> None:
    names = ("None", "Roadwork", "Flooding")
    found = label_sources([source(["0", "1", "Flooding", "Roadwork"])], names)
    assert found.class_names == names
    assert meaning(found) == {"0": "None", "1": "Roadwork", "Flooding": "Flooding"} | {
        "Roadwork": "Roadwork"
    }


def test_numbers_without_names_need_names_and_then_count_from_0() -> None:
    with pytest.raises(DataError, match=r"labels 2, 3, 10 are numbers without names; set class_"):
        label_sources([source(["10", "2", "3"])], None)
    with pytest.raises(DataError, match=r"labels 0\.0, 1\.0 are numbers without names"):
        label_sources([source(["1.0", "0.0"])], None)  # pandas, where a label was missing
    found = label_sources([source(["1", "0", "2"])], ("stop", "yield", "crossing"))
    assert meaning(found) == {"1": "yield", "0": "stop", "2": "crossing"}
    with pytest.raises(DataError, match="label '3' is in neither"):
        label_sources([source(["1", "2", "3"])], ("stop", "yield", "crossing"))
    with pytest.raises(DataError, match=r"labels 0, 1, 2 are numbers without names"):
        label_sources([source(["0", "1", "2", "-1"])], None)


def test_numbers_of_folders_and_of_class_label_are_names(tmp_path: Path) -> None:
    names = [str(number) for number in range(43)]
    found = label_sources([source(sorted(names), folders=True)], None)
    assert found.class_names == tuple(names)
    digits = [str(number) for number in range(10)]
    opened = parquet(tmp_path / "x.parquet", list(range(10)), digits[::-1])
    found = label_sources([opened], None)
    assert found.class_names == tuple(digits[::-1])
    assert meaning(found)["0 (9)"] == "9"
    # Two folders, or two names, 0 and 1 are the network's, as two numbers are.
    assert label_sources([source(["1", "0"], folders=True)], None).class_names[1] == "Roadwork"
    opened = parquet(tmp_path / "y.parquet", [0, 1], ["1", "0"])
    assert meaning(label_sources([opened], None)) == {"0 (1)": "Roadwork", "1 (0)": "None"}


@pytest.mark.parametrize("names", [("None", "Roadwork"), ("Roadwork", "None")])
def test_1_is_roadwork_in_whichever_order_the_classes_are(names: tuple[str, str]) -> None:
    found = label_sources([source(["0", "1"])], names)
    assert found.class_names == names
    assert meaning(found) == {"0": "None", "1": "Roadwork"}


def test_a_label_map_names_the_classes() -> None:
    found = label_sources(
        [source(["bad", "good", "?"], {"bad": "Pothole", "good": "Plain", "?": "exclude"})], None
    )
    assert found.class_names == ("Plain", "Pothole")
    by_number = label_sources([source(["0", "1"], {"0": "good", "1": "bad"})], None)
    assert by_number.class_names == ("good", "bad")
    excluding = label_sources([source(["0", "1", "9"], {"9": "exclude"})], None)
    assert meaning(excluding) == {"0": "None", "1": "Roadwork", "9": "exclude"}


def test_sources_with_and_without_a_map_are_fused() -> None:
    found = label_sources(
        [source(["0", "1"]), source(["street", "works"], {"street": "None", "works": "Roadwork"})],
        None,
    )
    assert found.class_names == ("None", "Roadwork")
    assert meaning(found, 1) == {"street": "None", "works": "Roadwork"}
    with pytest.raises(DataError, match="labels 0, 1 are numbers without names"):
        label_sources([source(["0", "1"]), source(["Plain", "Pothole"])], None)


def test_no_class_is_called_as_the_answer_that_defers() -> None:
    with pytest.raises(DataError, match=r"'defer' is a class \(from .*\), and the answer of"):
        label_sources([source(["defer", "answer"])], None)

    renamed = {"defer": "Deferred", "answer": "Answered"}
    found = label_sources([source(["defer", "answer"], renamed)], None)
    assert set(found.class_names) == {"Deferred", "Answered"}


def test_a_class_without_images_is_refused_before_any_is_decoded() -> None:
    with pytest.raises(DataError, match="class None has no image; the labels are 1 -> Roadwork"):
        label_sources([source(["1", "1"])], None)
    with pytest.raises(DataError, match="class c has no image"):
        label_sources([source(["a", "b"])], ("a", "b", "c"))
    with pytest.raises(DataError, match="Plain is the only class"):
        label_sources([source(["Plain"])], None)
    with pytest.raises(DataError, match="no rows are left, label_map excludes all 2"):
        label_sources([source(["-1", "-1"])], None)


@pytest.mark.parametrize("names", [["Roadwork", "None"], ["None", "Roadwork"]])
def test_class_label_names_are_read_in_either_order(tmp_path: Path, names: list[str]) -> None:
    opened = parquet(tmp_path / "x.parquet", [0, 0, 0, 1], names)
    found = label_sources([opened], None)
    assert found.class_names == ("None", "Roadwork")
    assert meaning(found) == {f"0 ({names[0]})": names[0], f"1 ({names[1]})": names[1]}
    labels = [record.label for record in opened.records(found.of_sources[0])]
    assert labels == [names[0]] * 3 + [names[1]]


@pytest.mark.parametrize(
    "names", [["Roadwork", "None"], ["None", "Roadwork"], ["Pothole", "Plain"]]
)
def test_files_that_datasets_has_written(tmp_path: Path, names: list[str]) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=names)}
    )
    rows = {"image": [{"bytes": b"x", "path": f"{i}.jpg"} for i in range(4)], "label": [0, 1, 1, 1]}
    path = tmp_path / "x.parquet"
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
    ours = tmp_path / "ours.parquet"
    write_hf_parquet(ours, [0, 1, 1, 1], names)
    assert pq.read_schema(path) == pq.read_schema(ours)
    assert pq.read_schema(path).metadata == pq.read_schema(ours).metadata

    opened = open_source(SourceConfig(data=str(path)))
    found = label_sources([opened], None)
    labels = [record.label for record in opened.records(found.of_sources[0])]
    assert labels == [names[0]] + [names[1]] * 3
    assert set(found.class_names) == set(names)


def test_own_names_keep_the_order_of_class_label_and_minus_one_is_left_out(tmp_path: Path) -> None:
    opened = parquet(tmp_path / "x.parquet", [2, 0, -1], ["b", "unused", "a"])
    found = label_sources([opened], None)
    assert found.class_names == ("b", "a")
    assert found.origin == "the data, in the order of ClassLabel"
    assert meaning(found) == {"2 (a)": "a", "0 (b)": "b", "-1": "exclude"}


def test_each_file_has_names_of_its_own(tmp_path: Path) -> None:
    for name, names in (("a", ["Plain", "Pothole"]), ("b", ["Pothole", "Plain"])):
        write_hf_parquet(tmp_path / f"{name}.parquet", [0, 1], names)
    opened = open_source(SourceConfig(data=str(tmp_path)))
    found = label_sources([opened], None)
    assert found.class_names == ("Plain", "Pothole")
    assert [record.label for record in opened.records(found.of_sources[0])] == [
        "Plain",
        "Pothole",
        "Pothole",
        "Plain",
    ]


def test_a_map_by_number_that_contradicts_the_names_is_refused(tmp_path: Path) -> None:
    by_number = {"0": "None", "1": "Roadwork"}
    opened = parquet(tmp_path / "x.parquet", [0, 1], ["Roadwork", "None"], label_map=by_number)
    with pytest.raises(
        DataError, match=r"label_map says 0 is 'None', .* ClassLabel says 'Roadwork'"
    ):
        label_sources([opened], ("None", "Roadwork"))
    by_name = {"Roadwork": "works", "None": "free"}
    opened = parquet(tmp_path / "x.parquet", [0, 1], ["Roadwork", "None"], label_map=by_name)
    assert meaning(label_sources([opened], None)) == {"0 (Roadwork)": "works", "1 (None)": "free"}
    opened = parquet(tmp_path / "x.parquet", [0, 1], ["neg", "pos"], label_map=by_number)
    assert meaning(label_sources([opened], None)) == {"0 (neg)": "None", "1 (pos)": "Roadwork"}


def test_named_numbers_are_never_taken_for_positions(tmp_path: Path) -> None:
    opened = parquet(tmp_path / "x.parquet", [0, 1], ["Pothole", "Plain"])
    with pytest.raises(DataError, match="label 'Pothole' is in neither label_map nor class_names"):
        label_sources([opened], ("good", "bad"))
    with pytest.raises(DataError, match="label 2 has no name, ClassLabel has 2"):
        parquet(tmp_path / "y.parquet", [0, 2], ["a", "b"])


def test_names_of_a_nested_column(tmp_path: Path) -> None:
    features = {"scene": {"kind": {"names": ["works", "street"], "_type": "ClassLabel"}}}
    rows = [{"image": {"bytes": b"x", "path": "x"}, "scene": {"kind": i}} for i in (0, 1)]
    table = pa.Table.from_pylist(rows).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )
    pq.write_table(table, tmp_path / "x.parquet")
    config = SourceConfig(data=str(tmp_path / "x.parquet"), label_column="scene.kind")
    found = label_sources([open_source(config)], None)
    assert meaning(found) == {"0 (works)": "works", "1 (street)": "street"}


@pytest.mark.parametrize("metadata", [b"", b"[]", b'{"info": {"features": {"label": null}}}'])
def test_other_metadata_are_no_names(tmp_path: Path, metadata: bytes) -> None:
    rows = [{"image": {"bytes": b"x", "path": "x"}, "label": i} for i in (0, 1)]
    table = pa.Table.from_pylist(rows).replace_schema_metadata({"huggingface": metadata})
    pq.write_table(table, tmp_path / "x.parquet")
    found = label_sources([open_source(SourceConfig(data=str(tmp_path / "x.parquet")))], None)
    assert meaning(found) == {"0": "None", "1": "Roadwork"}

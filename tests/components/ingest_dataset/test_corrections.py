"""Images that a person excludes, and labels that a person replaces."""

import csv
import dataclasses
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.ingest_dataset.config import IngestConfig, PartConfig
from components.ingest_dataset.corrections import TABLE
from components.ingest_dataset.part import run_part
from components.ingest_dataset.step import run as ingest
from components.shared.contracts.artifacts import read_manifest
from components.shared.contracts.errors import DataError
from components.shared.contracts.step import execute
from components.shared.data.dataset import Dataset
from components.shared.storage import Store, StoreSettings
from tests.components.ingest_dataset.test_chunks import digests
from tests.components.ingest_dataset.test_part import encoded

N = 12


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Twelve pictures, even ones Roadwork; 2 has a near-duplicate in another group."""
    folder = tmp_path / "photos"
    folder.mkdir()
    lines = ["path,label,group"]
    for number in range(N):
        (folder / f"{number}.jpg").write_bytes(encoded(number))
        lines.append(f"{number}.jpg,{1 - number % 2},place{number}")
    (folder / "near2.jpg").write_bytes(encoded(2, quality=60))
    lines.append("near2.jpg,1,aside")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def sample_id(source: Path, name: str) -> str:
    return hashlib.sha256((source / name).read_bytes()).hexdigest()[:16]


def table(file: Path, *lines: str) -> str:
    file.write_text("\n".join(lines) + "\n")
    return str(file)


def ingested(source: Path, out: Path, **options: Any) -> Dataset:
    ingest(IngestConfig(data=str(source), image_size=32, **options), dataset=out)
    return Dataset.open(out)


def test_excluded_images_are_gone_and_no_other_sample_changes(source: Path, tmp_path: Path) -> None:
    before = ingested(source, tmp_path / "before")
    left_out = {sample_id(source, name) for name in ("1.jpg", "near2.jpg")}
    exclude = table(
        tmp_path / "suspects.csv",
        "id,path,given_label,suggested_label,score",
        *(f"{name},x.jpg,None,Roadwork,0.1" for name in left_out),
    )

    after = ingested(source, tmp_path / "after", exclude=exclude)
    # place2 was united with "aside" by the picture that is left out, and keeps that name.
    assert after.samples == [s for s in before.samples if s.sample_id not in left_out]
    assert "aside" in {s.group for s in after.samples}
    assert after.manifest.summary["n_excluded"] == 2
    assert after.manifest.summary["n_relabelled"] == 0


def test_new_labels_replace_the_sources_and_the_table_says_which(
    source: Path, tmp_path: Path
) -> None:
    before = ingested(source, tmp_path / "before")
    wrong, right = sample_id(source, "3.jpg"), sample_id(source, "5.jpg")
    relabel = table(
        tmp_path / "corrections.csv",
        "id,suggested_label,score,label",
        f"{wrong},None,0.1,Roadwork",
        "",
        f"{right},Roadwork,0.2,None",
    )

    after = ingested(source, tmp_path / "after", relabel=relabel)
    expected = [
        dataclasses.replace(s, label=1) if s.sample_id == wrong else s for s in before.samples
    ]
    assert after.samples == expected
    assert after.manifest.summary["n_relabelled"] == 1, "the other row says what the source says"
    with (tmp_path / "after" / TABLE).open(newline="") as stream:
        assert list(csv.DictReader(stream)) == [
            {
                "action": "relabelled",
                "sample_id": wrong,
                "source": "photos",
                "path": "3.jpg",
                "given_label": "None",
                "label": "Roadwork",
                "file": "corrections.csv",
                "line": "2",
            }
        ]


def test_rows_of_suspects_that_a_person_kept_are_corrections(source: Path, tmp_path: Path) -> None:
    name = sample_id(source, "3.jpg")
    relabel = table(tmp_path / "kept.csv", "id,suggested_label", f"{name},Roadwork")
    data = ingested(source, tmp_path / "data", relabel=relabel)
    assert data.samples[data.index[name]].label == 1


def test_a_label_settles_copies_that_contradict_each_other(source: Path, tmp_path: Path) -> None:
    (source / "copy.jpg").write_bytes((source / "3.jpg").read_bytes())
    with (source / "labels.csv").open("a") as stream:
        stream.write("copy.jpg,1,elsewhere\n")
    name = sample_id(source, "3.jpg")
    assert name not in ingested(source, tmp_path / "before").index

    relabel = table(tmp_path / "corrections.csv", "id,label", f"{name},Roadwork")
    after = ingested(source, tmp_path / "after", relabel=relabel)
    assert after.samples[after.index[name]].label == 1
    assert after.manifest.summary["n_label_conflicts"] == 0


def test_without_corrections_nothing_is_written_or_counted(source: Path, tmp_path: Path) -> None:
    data = ingested(source, tmp_path / "data")
    assert not (tmp_path / "data" / TABLE).exists()
    assert "n_excluded" not in data.manifest.summary


def test_parts_and_a_store_give_the_same_bytes(
    source: Path, tmp_path: Path, s3: StoreSettings, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.to_environment().items():
        monkeypatch.setenv(name, value)
    file = tmp_path / "corrections.csv"
    table(file, "id,label", f"{sample_id(source, '3.jpg')},Roadwork")
    Store(s3).put(bucket, "audit/corrections.csv", file)
    config = IngestConfig(
        data=str(source), image_size=32, relabel=f"s3://{bucket}/audit/corrections.csv"
    )
    ingest(config, dataset=tmp_path / "whole")

    parts = [tmp_path / "part1", tmp_path / "part2"]
    for number, part in enumerate(parts, start=1):
        of_part = PartConfig.from_mapping({**config.to_json(), "part": number, "n_parts": 2})
        run_part(of_part, part=part)
    ingest(config, dataset=tmp_path / "merged", parts=tuple(parts))
    assert digests(tmp_path / "merged") == digests(tmp_path / "whole")
    assert read_manifest(tmp_path / "whole").summary["n_relabelled"] == 1


REFUSED: dict[str, Callable[[Path], tuple[str, str]]] = {
    "unknown id": lambda _: (
        "id,label\n0123456789abcdef,None\n",
        r"relabel: 1 of 1 ids: 0123456789abcdef \(line 2\)",
    ),
    "no id column": lambda _: ("sample,label\nx,None\n", "no column id"),
    "no label column": lambda _: ("id,name\nx,None\n", "no column label or suggested_label"),
    "empty file": lambda _: ("", "no column id"),
    "id of a spreadsheet": lambda _: (
        "id,label\n1.23E+15,None\n",
        r"line 2: id '1.23E\+15' is not",
    ),
    "no class": lambda s: (f"id,label\n{sample_id(s, '3.jpg')},Rodwork\n", "line 2: 'Rodwork'"),
    "no label": lambda s: (f"id,label\n{sample_id(s, '3.jpg')},\n", "line 2 has no label"),
    "two labels": lambda s: (
        f"id,label\n{sample_id(s, '3.jpg')},None\n{sample_id(s, '3.jpg')},Roadwork\n",
        "line 3: .* is 'Roadwork', line 2 says 'None'",
    ),
    "short row": lambda _: ("id,label\n0123456789abcdef\n", "line 2 has 1 fields, expected 2"),
    "emptied class": lambda s: (
        "id,label\n"
        + "".join(f"{sample_id(s, f'{n}.jpg')},None\n" for n in range(0, N, 2))
        + f"{sample_id(s, 'near2.jpg')},None\n",
        "leave no image of class Roadwork",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_file_is_one_line_and_exit_code_42(
    case: str, source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text, expected = REFUSED[case](source)
    file = tmp_path / "corrections.csv"
    file.write_text(text)
    config = {"data": str(source), "image_size": 32, "relabel": str(file)}
    with pytest.raises(SystemExit) as ended:
        execute(ingest, config, dataset=SimpleNamespace(path=str(tmp_path / "out")))
    assert ended.value.code == 42
    (line,) = [x for x in capfd.readouterr().err.splitlines() if x.startswith("error")]
    assert re.search(expected, line), line
    assert not (tmp_path / "out").exists()


def test_an_id_in_both_files_and_a_missing_file_are_refused(source: Path, tmp_path: Path) -> None:
    name = sample_id(source, "3.jpg")
    exclude = table(tmp_path / "a.csv", "id", name)
    relabel = table(tmp_path / "b.csv", "id,label", f"{name},None")
    with pytest.raises(DataError, match=rf"both name {name} \(lines 2 and 2\)"):
        ingested(source, tmp_path / "out", exclude=exclude, relabel=relabel)
    with pytest.raises(DataError, match=r"exclude='.*nothing.csv' does not exist"):
        ingested(source, tmp_path / "out", exclude=str(tmp_path / "nothing.csv"))
    with pytest.raises(DataError, match=r"cannot be read .*folder"):
        ingested(source, tmp_path / "out", exclude=str(tmp_path))

"""The audit of a data set with flipped labels, its tables and its page."""

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.audit_labels.config import AuditLabelsConfig
from components.audit_labels.step import run
from components.ingest_dataset.config import IngestConfig
from components.ingest_dataset.step import run as ingest_dataset
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import read_manifest, writing
from components.shared.contracts.documents import read_json
from components.shared.contracts.errors import ArtifactError, LeakageViolationError
from components.shared.data.dataset import Dataset
from components.shared.data.features import (
    SHARDS,
    FeatureRecipe,
    Features,
    shard_name,
    write_header,
)
from tests.components.audit_labels.planted import N, Planted, planted
from tests.components.ingest_dataset.test_chunks import digests

CONFIG = AuditLabelsConfig(n_shown=5)
NAMES = ("None", "Roadwork")


def write_features(
    path: Path,
    split: str,
    ids: list[str],
    values: np.ndarray,
    dataset: Path,
    shape: tuple[int, ...],
) -> None:
    """Features of a split as extract_features writes them, by a backbone that is none."""
    with writing(
        path,
        kind=Kind.features_of(split),
        step="extract_features",
        config=CONFIG,
        inputs={"dataset": read_manifest(dataset), "backbone": "b" * 64},
        split=split,
    ) as out:
        (out / SHARDS).mkdir()
        np.save(out / SHARDS / shard_name(0), values.astype(np.float16).reshape(-1, *shape))
        recipe = FeatureRecipe(1, "none", 0, "fp32")
        write_header(out, split, Features(tuple(ids), shape, len(ids), [], recipe))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with dataset, train and select: the planted features, one for each picture."""
    root, data = tmp_path_factory.mktemp("audit"), planted()
    (root / "photos").mkdir()
    lines = ["path,label,group"]
    rng = np.random.default_rng(1)
    for row in range(N):
        pixels = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((32, 32), Image.Resampling.NEAREST).save(
            root / f"photos/{row:03d}.png"
        )
        lines.append(f"{row:03d}.png,{data.labels[row]},{data.groups[row]}")
    (root / "photos/labels.csv").write_text("\n".join(lines) + "\n")
    config = IngestConfig(data=str(root / "photos"), image_size=32, near_duplicate_distance=0)
    ingest_dataset(config, dataset=root / "dataset")
    _write_both(root, root, data, (1, data.features.shape[1]))
    return root


def _write_both(root: Path, out: Path, data: Planted, shape: tuple[int, ...]) -> None:
    dataset = Dataset.open(root / "dataset")
    for name, split, rest in (("train", "TRAIN", range(1, 8)), ("select", "VAL_SELECT", [0])):
        rows = [
            (sample.sample_id, int(Path(sample.path).stem))
            for number, sample in enumerate(dataset.samples)
            if number % 8 in rest
        ]
        values = np.repeat(data.features[[row for _, row in rows], None], shape[-2], axis=1)
        write_features(
            out / name, split, [name for name, _ in rows], values, root / "dataset", shape
        )


def audit(inputs: Path, out: Path, config: AuditLabelsConfig = CONFIG, **changed: Path) -> Path:
    paths = {
        "dataset": inputs / "dataset",
        "train_features": inputs / "train",
        "val_select_features": inputs / "select",
    }
    run(config, **(paths | changed), audit=out / "audit", report=out / "report.html")
    return out / "audit"


@pytest.fixture(scope="module")
def audited(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return audit(inputs, tmp_path_factory.mktemp("audited"))


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def refuse_misses(audit: Path) -> None:
    """Nothing but flips is suspect, and at most one of ten is missed: their number is estimated."""
    flips = {f"{row:03d}.png" for row in planted().flipped}
    found = {row["path"] for row in table(audit / "suspects.csv")}
    assert found <= flips
    assert len(flips - found) <= 1


def test_flipped_labels_are_suspects_with_their_true_class(audited: Path) -> None:
    data, rows = planted(), table(audited / "suspects.csv")
    refuse_misses(audited)
    assert list(rows[0])[:5] == ["id", "path", "given_label", "suggested_label", "score"]
    assert {row["split"] for row in rows} == {"TRAIN", "VAL_SELECT"}
    for row in rows:
        number = int(Path(row["path"]).stem)
        assert row["suggested_label"] == NAMES[data.truth[number]] != row["given_label"]
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores)
    assert len(table(audited / "images.csv")) == N


def test_a_person_who_agrees_hands_the_suspects_back_as_they_are(
    inputs: Path, audited: Path, tmp_path: Path
) -> None:
    config = IngestConfig(
        data=str(inputs / "photos"),
        image_size=32,
        near_duplicate_distance=0,
        relabel=str(audited / "suspects.csv"),
    )
    ingest_dataset(config, dataset=tmp_path / "dataset")
    samples = Dataset.open(tmp_path / "dataset").samples
    wrong = [s for s in samples if s.label != planted().truth[int(Path(s.path).stem)]]
    assert len(wrong) <= 1


def test_other_tables_name_what_was_planted(audited: Path) -> None:
    data = planted()
    assert table(audited / "outliers.csv")[0]["path"] == f"{data.outlier:03d}.png"
    pair = table(audited / "near_duplicates.csv")[0]
    assert {pair["path_a"], pair["path_b"]} == {f"{row:03d}.png" for row in data.copies}
    assert pair["label_a"] != pair["label_b"]
    clusters = table(audited / "clusters.csv")
    assert sum(int(row["n_images"]) for row in clusters) == N


def test_the_page_is_bounded_embedded_and_loads_nothing(audited: Path) -> None:
    page = (audited / "report.html").read_text(encoding="utf-8")
    assert page == (audited.parent / "report.html").read_text(encoding="utf-8")
    section = page.partition("<h2>Suspicious labels</h2>")[2].partition("</section>")[0]
    assert section.count("<img ") == CONFIG.n_shown
    assert "The lowest first; the first 5 of" in section
    sources = set(re.findall(r'src="([^"]{15})', page))
    assert sources == {"data:image/jpeg"}
    assert "<script" not in page
    assert "default-src 'none'" in page


def test_equal_inputs_give_equal_bytes(inputs: Path, audited: Path, tmp_path: Path) -> None:
    assert digests(audit(inputs, tmp_path)) == digests(audited)


def test_tiles_are_seen_too(inputs: Path, tmp_path: Path) -> None:
    data = planted()
    _write_both(inputs, tmp_path, data, (1, 3, data.features.shape[1]))
    views = {"train_features": tmp_path / "train", "val_select_features": tmp_path / "select"}
    refuse_misses(audit(inputs, tmp_path, **views))


def test_features_of_another_split_or_data_set_or_none_are_refused(
    inputs: Path, tmp_path: Path
) -> None:
    with pytest.raises(LeakageViolationError):
        audit(inputs, tmp_path, train_features=inputs / "select")

    shutil.copytree(inputs / "photos", tmp_path / "photos")
    (tmp_path / "photos/labels.csv").write_text(
        (inputs / "photos/labels.csv").read_text().replace("place0", "elsewhere")
    )
    other = IngestConfig(data=str(tmp_path / "photos"), image_size=32)
    ingest_dataset(other, dataset=tmp_path / "other")
    with pytest.raises(ArtifactError, match="made from another dataset"):
        audit(inputs, tmp_path, dataset=tmp_path / "other")

    with writing(
        tmp_path / "empty",
        kind=Kind.TRAIN_FEATURES,
        step="extract_features",
        config=CONFIG,
        inputs={"dataset": read_manifest(inputs / "dataset")},
        split="TRAIN",
    ) as out:
        write_header(out, "TRAIN", None)
    with pytest.raises(ArtifactError, match="run extract_features with needed=true"):
        audit(inputs, tmp_path, train_features=tmp_path / "empty")


def test_a_class_of_one_group_is_an_answer(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Labels of one place alone: what a small split may have."""
    data = planted()
    lines = ["path,label,group"]
    for row in range(N):
        shutil.copy(inputs / f"photos/{row:03d}.png", tmp_path)
        lines.append(f"{row:03d}.png,{int(row < 2)},{data.groups[row]}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    config = IngestConfig(data=str(tmp_path), image_size=32, near_duplicate_distance=0)
    ingest_dataset(config, dataset=tmp_path / "dataset")
    _write_both(tmp_path, tmp_path, data, (1, data.features.shape[1]))

    found = audit(tmp_path, tmp_path)
    reason = "class Roadwork has 1 group(s) in TRAIN and VAL_SELECT; cross-fitting needs 2"
    assert read_json(found / "audit.json")["infeasible"] == reason
    assert table(found / "suspects.csv") == []
    assert f"<b>No label could be audited.</b> {reason}." in (found / "report.html").read_text()
    assert f"no label could be audited: {reason}" in capsys.readouterr().out

"""Pixels of VAL_TEST for evaluation and export: bounded, and enough for every hard example."""

import dataclasses
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from components.shared.contracts.artifacts import writing
from components.shared.contracts.config import Config
from components.shared.contracts.errors import ArtifactError, LeakageViolationError
from components.shared.data.dataset import Dataset
from components.shared.data.val_test_images import (
    ValTestImages,
    encode_thumbnail,
    write_val_test_images,
)
from tests.bundles import write_dataset
from tests.resigned import signed

IDS = tuple(f"{i:016x}" for i in range(2, 12))


def _write(
    path: Path, dataset: Path, logits: npt.NDArray[np.float32], most: int, split: str = "VAL_TEST"
) -> ValTestImages:
    data = Dataset.open(dataset)
    ids = IDS if len(logits) == len(IDS) else [sample.sample_id for sample in data.samples]
    with writing(
        path,
        kind="ValTestImages",
        step="predict_logits",
        config=Config(),
        inputs={"dataset": data.manifest},
        split=split,
    ) as out:
        write_val_test_images(out, data, ids, logits, most)
    return ValTestImages.open(path)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Twenty images of two classes in turn, larger than a thumbnail."""
    write_dataset(tmp_path / "dataset", ("None", "Roadwork"), size=230)
    return tmp_path / "dataset"


def test_thumbnails_are_of_the_images_that_the_model_is_least_right_about(
    dataset: Path, tmp_path: Path
) -> None:
    logits = np.random.default_rng(0).normal(size=(len(IDS), 2)).astype(np.float32)
    images = _write(tmp_path / "images", dataset, logits, most=4)
    labels = np.arange(2, 12) % 2
    assert list(images.labels.values()) == labels.tolist()

    right_by = np.where(labels == 1, 1, -1) * (logits[:, 1] - logits[:, 0])
    expected = {IDS[row] for row in np.argsort(right_by)[:4]}
    assert {i for i in IDS if images.thumbnail(i)} == expected

    data = Dataset.open(dataset)
    for sample_id in expected:
        jpeg = images.thumbnail(sample_id)
        pixels = data.images(np.array([data.index[sample_id]]))[0]
        assert jpeg == encode_thumbnail(pixels)
        assert Image.open(io.BytesIO(jpeg)).size == (224, 224)


def test_its_size_is_bounded_whatever_the_size_of_the_data_set(
    dataset: Path, tmp_path: Path
) -> None:
    logits = np.zeros((20, 2), dtype=np.float32)
    images = _write(tmp_path / "images", dataset, logits, most=3)
    pictures = [images.thumbnail(sample_id) for sample_id in images.labels]
    assert sum(map(bool, pictures)) == 3
    assert (tmp_path / "images/thumbnails.npy").stat().st_size < 3 * 30_000
    assert images.probes.shape == (16, 230, 230, 3)


def _edit_table(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    lines = (path / "samples.csv").read_text().splitlines()
    (path / "samples.csv").write_text("\n".join(change(lines)) + "\n")


def _edit_json(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def _another_dataset(path: Path) -> None:
    document = json.loads((path / "dataset_manifest.json").read_text()) | {"kind": "Splits"}
    (path / "dataset_manifest.json").write_bytes(signed(document))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda p: _edit_table(p, lambda rows: rows[:-1]), "thumbnails.npy: is .*expected"),
        (lambda p: _edit_table(p, lambda rows: [*rows, rows[-1]]), "not sorted by sample_id"),
        (lambda p: _edit_table(p, lambda rows: [rows[0], *rows[:0:-1]]), "not sorted by sample"),
        (
            lambda p: _edit_table(p, lambda r: [*r[:-1], f"{IDS[-1]},7,1,,,"]),
            "labels 7, not",
        ),
        (lambda p: _edit_table(p, lambda r: [*r[:-1], f"{IDS[-1]},1,-1,,,"]), "less than 0 bytes"),
        (lambda p: _edit_json(p / "val_test_images.json", image_size=8), "probes.npy: is"),
        (lambda p: _edit_json(p / "val_test_images.json", image_size=0), "must be >= 1"),
        (_another_dataset, "is not the manifest of the data set"),
    ],
)
def test_files_that_contradict_each_other_are_refused(
    edit: Callable[[Path], None], message: str, dataset: Path, tmp_path: Path
) -> None:
    logits = np.zeros((len(IDS), 2), dtype=np.float32)
    manifest = _write(tmp_path / "images", dataset, logits, most=99).manifest
    with writing(
        tmp_path / "edited",
        kind="ValTestImages",
        step="predict_logits",
        config=Config(),
        inputs=manifest.inputs,
        split="VAL_TEST",
    ) as out:
        shutil.copytree(tmp_path / "images", out, dirs_exist_ok=True)
        (out / "manifest.json").unlink()
        edit(out)
    with pytest.raises(ArtifactError, match=message):
        ValTestImages.open(tmp_path / "edited")


def test_images_of_another_split_are_refused(dataset: Path, tmp_path: Path) -> None:
    logits = np.zeros((len(IDS), 2), dtype=np.float32)
    with pytest.raises(LeakageViolationError, match="may only see 'VAL_TEST'"):
        _write(tmp_path / "images", dataset, logits, most=9, split="VAL_CALIB")
    manifest = _write(tmp_path / "images", dataset, logits, most=9).manifest
    _edit_json(tmp_path / "images/val_test_images.json", split="TRAIN")
    document = dataclasses.asdict(manifest)
    document["files"]["val_test_images.json"] = _entry(tmp_path / "images/val_test_images.json")
    (tmp_path / "images/manifest.json").write_bytes(signed(document))
    with pytest.raises(LeakageViolationError, match="holds split 'TRAIN'"):
        ValTestImages.open(tmp_path / "images")


def _entry(file: Path) -> dict[str, object]:
    from components.shared.contracts.artifacts import sha256_file

    return {"sha256": sha256_file(file), "bytes": file.stat().st_size}

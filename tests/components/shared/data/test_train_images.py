"""Training without labels reads the pixels of TRAIN, and nothing else."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from components.shared.contracts.artifacts import read_manifest, sha256_file, write_json
from components.shared.contracts.config import canonical_json
from components.shared.contracts.errors import ArtifactError, LeakageViolationError
from components.shared.data.dataset import Dataset
from components.shared.data.splits import read_splits
from components.shared.data.train_images import TrainImages
from tests.golden.make import FOLDER


def signed_again(path: Path, **changes: object) -> None:
    """A manifest that was edited with care: what is written in it fits the files."""
    document = json.loads((path / "manifest.json").read_text()) | changes
    del document["manifest_digest"]
    found = [
        file for file in sorted(path.rglob("*")) if file.is_file() and file.name != "manifest.json"
    ]
    document["files"] = {
        file.relative_to(path).as_posix(): {
            "sha256": sha256_file(file),
            "bytes": file.stat().st_size,
        }
        for file in found
    }
    digest = hashlib.sha256(canonical_json(document).encode()).hexdigest()
    write_json(path / "manifest.json", document | {"manifest_digest": digest})
    read_manifest(path)


def test_it_holds_the_pixels_of_train_in_the_order_of_their_ids() -> None:
    data, images = Dataset.open(FOLDER / "dataset"), TrainImages.open(FOLDER / "train_images")
    assert list(images.sample_ids) == read_splits(FOLDER / "splits").ids("TRAIN")
    rows = np.array([0, len(images) - 1, 7])
    expected = data.images(np.array([data.index[images.sample_ids[row]] for row in rows]))
    np.testing.assert_array_equal(images.images(rows), expected)


def test_it_names_no_label_no_group_and_no_path() -> None:
    data, folder = Dataset.open(FOLDER / "dataset"), FOLDER / "train_images"
    header = (folder / "train_images.json").read_text()
    assert sorted(entry.name for entry in folder.iterdir()) == [
        "images",
        "manifest.json",
        "train_images.json",
    ]
    assert set(json.loads(header)) == {"split", "image_size", "sample_ids"}
    text = header + (folder / "manifest.json").read_text()
    assert not any(
        name in text for name in [*data.class_names[1:], *(s.path for s in data.samples), "place1"]
    )


@pytest.mark.parametrize("name", ["dataset", "val_test_logits", "splits"])
def test_other_artifacts_are_refused(name: str) -> None:
    with pytest.raises(LeakageViolationError, match="this step may only see 'TRAIN'"):
        TrainImages.open(FOLDER / name)


def test_a_relabelled_artifact_is_refused_however_carefully_it_was_done(tmp_path: Path) -> None:
    dataset = Path(shutil.copytree(FOLDER / "dataset", tmp_path / "dataset"))
    signed_again(dataset, kind="TrainImages", split="TRAIN")
    with pytest.raises(
        LeakageViolationError, match=r"holds dataset.json, duplicates.csv.*samples.csv"
    ):
        TrainImages.open(dataset)
    other = Path(shutil.copytree(FOLDER / "train_images", tmp_path / "val"))
    header = json.loads((other / "train_images.json").read_text())
    write_json(other / "train_images.json", header | {"split": "VAL_TEST"})
    signed_again(other)
    with pytest.raises(LeakageViolationError, match="holds split 'VAL_TEST'"):
        TrainImages.open(other)
    write_json(other / "train_images.json", header | {"labels": [0]})
    signed_again(other)
    with pytest.raises(LeakageViolationError, match="labels"):
        TrainImages.open(other)
    signed_again(other, split="VAL_SELECT")
    with pytest.raises(LeakageViolationError, match="holds split 'VAL_SELECT'"):
        TrainImages.open(other)


def test_a_changed_pixel_is_named(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FOLDER / "train_images", tmp_path / "x"))
    shard = folder / "images/shard-00000.npy"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\0")
    with pytest.raises(ArtifactError, match=r"images/shard-00000\.npy: sha256"):
        TrainImages.open(folder)

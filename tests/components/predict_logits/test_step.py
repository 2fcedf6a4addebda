"""Predictions do not depend on the number of processes, and are refused for other data."""

from pathlib import Path

import numpy as np
import pytest

from components.ingest_dataset.config import IngestConfig
from components.ingest_dataset.step import run as ingest_dataset
from components.predict_logits.config import PredictLogitsConfig
from components.predict_logits.step import run
from components.shared.contracts.artifacts import read_manifest
from components.shared.contracts.errors import ArtifactError
from components.shared.data.dataset import Dataset
from components.shared.data.drift_reference import open_reference
from components.shared.data.splits import read_splits
from components.shared.data.val_test_images import ValTestImages, encode_thumbnail
from components.shared.policies.logits import read_logits
from components.shared.serving.bundle import open_bundle
from components.shared.serving.predictor import Predictor
from components.shared.vision.reference_image import reference_image
from components.split_dataset.config import SplitConfig
from components.split_dataset.step import run as split_dataset
from tests.components.conftest import TinyRun, predict, write_source

OUTPUTS = ("val_calib_logits", "val_test_logits", "val_test_images", "drift_reference")


def test_two_processes_say_what_one_says(tiny: TinyRun, tmp_path: Path) -> None:
    predict(tiny, tmp_path, n_processes=2)
    for name, split in (("val_calib_logits", "VAL_CALIB"), ("val_test_logits", "VAL_TEST")):
        one, _ = read_logits(tiny.root / name, split)
        two, manifest = read_logits(tmp_path / name, split)
        assert list(two.sample_ids) == read_splits(tiny.splits).ids(split)
        assert np.allclose(one.logits, two.logits, atol=1e-5)
        assert set(manifest.inputs) == {"dataset", "splits", "checkpoint"}
    assert {entry.name for entry in tmp_path.iterdir()} == set(OUTPUTS)


def test_the_logits_say_what_auto_was(tiny: TinyRun, tmp_path: Path) -> None:
    predict(tiny, tmp_path, precision="auto", robustness=False)
    for name in ("val_calib_logits", "val_test_logits"):
        manifest = read_manifest(tmp_path / name)
        assert manifest.config["precision"] == "auto"
        found = manifest.summary["computation"]
        assert (found["precision"], found["deterministic"]) == ("fp32", True)
        assert found["device"] == "cpu"


def test_the_reference_has_one_image_of_each_group_and_two_processes_compute_the_same(
    tiny: TinyRun, tmp_path: Path
) -> None:
    """A bundle's predictor computes the same features from the stored pixels."""
    data, splits = Dataset.open(tiny.dataset), read_splits(tiny.splits)
    found, manifest = open_reference(tiny.drift_reference)
    assert set(manifest.inputs) == {"dataset", "splits", "checkpoint"}
    counts = {"VAL_CALIB": len(found.features), "TRAIN": len(found.support)}
    for split, count in counts.items():
        samples = [data.samples[data.index[i]] for i in splits.ids(split)]
        assert count == len({sample.group for sample in samples})
    assert found.n_groups == len(found.features)

    predictor = Predictor(open_bundle(tiny.bundle))
    ids = splits.ids("VAL_CALIB")
    features, logits, _ = predictor.embedded(data.images(np.array([data.index[i] for i in ids])))
    rows = [int(np.abs(logits - row).sum(axis=1).argmin()) for row in found.logits]
    np.testing.assert_allclose(logits[rows], found.logits, atol=1e-4)
    np.testing.assert_allclose(features[rows], found.features, rtol=2e-3, atol=1e-3)
    labels = [data.samples[data.index[ids[row]]].label for row in rows]
    assert labels == found.labels.tolist()
    groups = {data.samples[data.index[ids[row]]].group for row in rows}
    assert len(groups) == len(rows)
    probe = predictor.embedded(reference_image(data.image_size))[0][0]
    np.testing.assert_allclose(probe, found.probe, rtol=2e-3, atol=1e-3)

    predict(tiny, tmp_path, n_processes=2)
    again, _ = open_reference(tmp_path / "drift_reference")
    np.testing.assert_allclose(found.logits, again.logits, atol=1e-5)
    np.testing.assert_array_equal(found.labels, again.labels)


def test_later_steps_get_the_pixels_of_val_test_that_they_show(tiny: TinyRun) -> None:
    data = Dataset.open(tiny.dataset)
    images = ValTestImages.open(tiny.val_test_images)
    assert images.dataset == data.manifest
    assert list(images.labels) == read_splits(tiny.splits).ids("VAL_TEST")
    stored = {data.images(np.array([data.index[i]])).tobytes() for i in images.labels}
    assert len(images.probes) == min(16, len(stored))
    assert {probe.tobytes() for probe in images.probes} <= stored
    for sample_id, label in images.labels.items():
        sample = data.samples[data.index[sample_id]]
        pixels = data.images(np.array([data.index[sample_id]]))[0]
        assert label == sample.label
        assert images.thumbnail(sample_id) == encode_thumbnail(pixels)


def test_a_model_of_other_data_says_nothing(tiny: TinyRun, tmp_path: Path) -> None:
    write_source(tmp_path / "source", 60)
    ingest_dataset(
        IngestConfig(data=str(tmp_path / "source"), image_size=16), dataset=tmp_path / "dataset"
    )
    split_dataset(
        SplitConfig(min_per_class=1), dataset=tmp_path / "dataset", splits=tmp_path / "splits"
    )
    outputs = {name: tmp_path / name for name in OUTPUTS}
    with pytest.raises(ArtifactError, match="made from another dataset"):
        run(
            PredictLogitsConfig(n_processes=1),
            dataset=tmp_path / "dataset",
            splits=tmp_path / "splits",
            checkpoint=tiny.checkpoint,
            **outputs,
        )

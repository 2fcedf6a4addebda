"""Predictions do not depend on the number of processes, and are refused for other data."""

from pathlib import Path

import numpy as np
import pytest

from components.ingest_dataset.config import IngestConfig
from components.ingest_dataset.step import run as ingest_dataset
from components.predict_logits.config import PredictLogitsConfig
from components.predict_logits.step import run
from components.shared.contracts.errors import ArtifactError
from components.shared.data.dataset import Dataset
from components.shared.data.splits import read_splits
from components.shared.data.val_test_images import ValTestImages, encode_thumbnail
from components.shared.policies.logits import read_logits
from components.split_dataset.config import SplitConfig
from components.split_dataset.step import run as split_dataset
from tests.components.conftest import TinyRun, predict, write_source

OUTPUTS = ("val_calib_logits", "val_test_logits", "val_test_images")


def test_two_processes_say_what_one_says(tiny: TinyRun, tmp_path: Path) -> None:
    predict(tiny, tmp_path, n_processes=2)
    for name, split in (("val_calib_logits", "VAL_CALIB"), ("val_test_logits", "VAL_TEST")):
        one, _ = read_logits(tiny.root / name, split)
        two, manifest = read_logits(tmp_path / name, split)
        assert list(two.sample_ids) == read_splits(tiny.splits).ids(split)
        assert np.allclose(one.logits, two.logits, atol=1e-5)
        assert set(manifest.inputs) == {"dataset", "splits", "checkpoint"}
    assert {entry.name for entry in tmp_path.iterdir()} == set(OUTPUTS)


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

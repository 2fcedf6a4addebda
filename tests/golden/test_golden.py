"""Artifacts that users have on disk are read by today's code."""

from typing import Any

import numpy as np
import pytest
import torch

from components.detect_drift.step import verdict
from components.ingest_dataset.chunks import Chunk, chunk_name
from components.promote_bundle.report import render
from components.score_images.table import counts
from components.shared.contracts.artifacts import SCHEMA_VERSION, verify_dir
from components.shared.contracts.documents import read_object
from components.shared.data.dataset import Dataset
from components.shared.data.drift_reference import open_reference
from components.shared.data.features import open_features
from components.shared.data.splits import read_splits
from components.shared.data.train_images import TrainImages
from components.shared.data.train_labels import read_train_labels
from components.shared.data.val_test_images import ValTestImages
from components.shared.models.classifier import Classifier, normalise
from components.shared.policies.logits import read_logits
from components.shared.policies.policy_artifact import read_policy
from components.shared.serving.bundle import open_bundle
from components.shared.serving.formats.onnx_predictor import OnnxPredictor
from components.shared.serving.predictor import Predictor
from components.shared.training.checkpoint import files as checkpoint_files
from tests.golden.make import FOLDER, KINDS, POLICIES

_LOGITS = {
    "val_select_logits": "VAL_SELECT",
    "val_calib_logits": "VAL_CALIB",
    "val_test_logits": "VAL_TEST",
    "gate_calib_logits": "VAL_CALIB",
    "gate_test_logits": "VAL_TEST",
}
_SPLITS = _LOGITS | {
    "train_images": "TRAIN",
    "train_labels": "TRAIN",
    "train_features": "TRAIN",
    "val_select_features": "VAL_SELECT",
    "val_test_images": "VAL_TEST",
    "drift_reference": "VAL_CALIB",
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_stored_and_verifies(name: str) -> None:
    manifest = verify_dir(FOLDER / name, KINDS[name], split=_SPLITS.get(name))
    assert manifest.schema_version == SCHEMA_VERSION


def test_readers_give_what_was_written() -> None:
    data = Dataset.open(FOLDER / "dataset")
    assert (len(data.samples), data.class_names, data.image_size) == (240, ("None", "Roadwork"), 16)
    assert data.images(np.array([0, 239])).shape == (2, 16, 16, 3)
    assert sorted(read_splits(FOLDER / "splits").of) == [
        sample.sample_id for sample in data.samples
    ]
    part = FOLDER / "image_part"
    chunk = Chunk.read(part / chunk_name(0), image_size=16)
    assert len(chunk.descriptions) == len(chunk.pixels) == len(chunk.hashes) == 33
    described = chunk.descriptions[0]
    sample = data.samples[data.index[described.sha256[:16]]]
    assert (sample.path, sample.source) == (described.path, described.source)
    stored = data.images(np.array([data.index[sample.sample_id]]))[0]
    assert np.array_equal(stored, chunk.pixels[0])

    images = TrainImages.open(FOLDER / "train_images")
    assert list(images.sample_ids) == read_splits(FOLDER / "splits").ids("TRAIN")
    assert images.images(np.array([0])).shape == (1, 16, 16, 3)
    _, labels, n_classes = read_train_labels(FOLDER / "train_labels", images)
    assert [data.samples[data.index[i]].label for i in images.sample_ids] == labels.tolist()
    assert n_classes == 2
    for name, split in (("train_features", "TRAIN"), ("val_select_features", "VAL_SELECT")):
        features, _ = open_features(FOLDER / name, split)
        assert list(features.sample_ids) == read_splits(FOLDER / "splits").ids(split)
        assert features.take(np.array([0])).shape == (1, features.width)
    shown = ValTestImages.open(FOLDER / "val_test_images")
    assert list(shown.labels) == read_splits(FOLDER / "splits").ids("VAL_TEST")
    assert shown.dataset == data.manifest
    assert shown.probes.shape == (16, 16, 16, 3)
    assert all(shown.thumbnail(sample_id).startswith(b"\xff\xd8") for sample_id in shown.labels)
    reference, _ = open_reference(FOLDER / "drift_reference")
    assert (reference.features.shape[1], reference.class_names) == (64, data.class_names)
    for name, split in _LOGITS.items():
        logits, _ = read_logits(FOLDER / name, split)
        assert list(logits.sample_ids) == read_splits(FOLDER / "splits").ids(split)
    for name in POLICIES:
        assert read_policy(FOLDER / name)[0].class_names == data.class_names
    decided, errors = counts(FOLDER / "scores/scores.parquet")
    assert sum(decided.values()) == 241
    assert not errors
    state = checkpoint_files.read(FOLDER / "step-000000003")
    assert (state.step, state.tensors["weights/w"].tolist()) == (3, [0.0, 1.0, 2.0])


def test_decisions_are_read_and_shown_again() -> None:
    document = read_object(FOLDER / "promotion/promotion.json", dict[str, Any])
    assert document["outcome"] == "promoted"
    page = render(document)
    assert document["decision"]["challenger"] in page
    assert "the gain of" in page
    found = read_object(FOLDER / "drift/drift.json", dict[str, Any])
    assert verdict(found).startswith("drift: a classifier tells 20 new from 60 reference groups")
    assert (FOLDER / "drift/images.csv").read_text().count("\n") == 21


def test_models_still_decide_as_they_did() -> None:
    logits, _ = read_logits(FOLDER / "val_test_logits", "VAL_TEST")
    data = Dataset.open(FOLDER / "dataset")
    rows = np.array([data.index[sample_id] for sample_id in logits.sample_ids])
    classifier = Classifier.load(FOLDER / "checkpoint")
    with torch.no_grad():
        again = classifier(normalise(torch.from_numpy(data.images(rows)), classifier.spec)).numpy()
    np.testing.assert_allclose(again, logits.logits, atol=1e-5)
    bundle = open_bundle(FOLDER / "bundle")
    answers = Predictor(bundle).answers(data.images(rows))
    assert [answer.decision for answer in answers] == bundle.policy.decide(again).tolist()
    assert {answer.decision for answer in answers} <= {"None", "Roadwork", "defer"}
    graphs = OnnxPredictor(open_bundle(FOLDER / "onnx_bundle"), threads=1)
    decisions = [answer.decision for answer in graphs.answers(data.images(rows))]
    assert decisions == [answer.decision for answer in answers]

"""The parts that go to the report belong to the stored logits."""

import dataclasses

import numpy as np

from components.predict_logits.explanations import explained_rows, margin_parts
from components.shared.data.margin_parts import MOST_EXPLAINED
from components.shared.data.val_test_images import ValTestImages
from components.shared.policies.logits import read_logits
from components.shared.serving.bundle import open_bundle
from components.shared.vision.classifier_spec import ClassifierSpec
from components.shared.vision.view_spec import ViewSpec
from tests.components.conftest import TinyRun


def test_every_thumbnail_of_a_small_data_set_has_parts_that_sum_to_its_margin(
    tiny: TinyRun,
) -> None:
    images = ValTestImages.open(tiny.val_test_images)
    logits, _ = read_logits(tiny.val_test_logits, "VAL_TEST")
    assert list(images.parts) == list(logits.sample_ids)
    for row, (sample_id, part) in enumerate(images.parts.items()):
        label = images.labels[sample_id]
        assert part.speaks_for == 1 - label
        margin = float(logits.logits[row, 1 - label]) - float(logits.logits[row, label])
        assert part.margin == margin
        total = part.cls + part.patches.sum() + part.constant
        np.testing.assert_allclose(total, margin, rtol=1e-3, atol=1e-3)  # patches are float16
        assert part.box == (0.0, 0.0, 1.0)


def test_the_reference_is_the_mean_of_what_the_bundle_carries(tiny: TinyRun) -> None:
    """So that a picture of `predict --explain` and the report have the same zero."""
    images = ValTestImages.open(tiny.val_test_images)
    features = open_bundle(tiny.root / "bundle").drift_reference().features.astype(np.float64)
    weight = _head_weight(tiny)
    direction = weight[1] - weight[0]
    at_reference = float(direction @ features.mean(axis=0)) + _head_bias(tiny)
    for sample_id, part in list(images.parts.items())[:3]:
        sign = 1 if part.speaks_for == 1 else -1
        np.testing.assert_allclose(part.constant, sign * at_reference, rtol=1e-4, atol=1e-5)
        assert sample_id in images.labels


def _head_weight(tiny: TinyRun) -> np.ndarray:
    from safetensors.numpy import load_file

    return load_file(tiny.checkpoint / "head.safetensors")["weight"].astype(np.float64)


def _head_bias(tiny: TinyRun) -> float:
    from safetensors.numpy import load_file

    bias = load_file(tiny.checkpoint / "head.safetensors")["bias"]
    return float(bias[1]) - float(bias[0])


def test_the_most_wrong_images_come_first_and_their_number_is_bounded() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 5 * MOST_EXPLAINED)
    logits = rng.normal(size=(len(labels), 2)).astype(np.float32)
    rows = explained_rows(logits, labels)
    assert len(rows) == MOST_EXPLAINED
    assert (np.diff(rows) > 0).all()
    right_by = np.where(labels == 1, 1, -1) * (logits[:, 1] - logits[:, 0])
    assert right_by[rows].max() <= np.delete(right_by, rows).min()


def test_a_tile_has_its_place_and_a_mirrored_one_is_turned_back() -> None:
    views = ViewSpec(
        grid=2,
        overlap=0.0,
        flips=True,
        size=28,
        aggregation="max",
        top_k=1,
        sharpness=1.0,
        positive_class="b",
    )
    spec = ClassifierSpec(("a", "b"), 56, (0.5,) * 3, (0.5,) * 3, "dinov2", views)
    columns = np.array([[2, 0.5, 0.25, 1, 2, 3, 4], [7, 0.5, 0.25, 1, 2, 3, 4]], dtype=np.float32)
    logits, labels = np.array([[1, 3], [2, 0]], dtype=np.float32), np.array([0, 1])
    plain, mirrored = margin_parts(columns, spec, logits, labels)
    assert plain.box == mirrored.box == (0.5, 0.0, 0.5)
    assert plain.patches.tolist() == [[1, 2], [3, 4]]
    assert mirrored.patches.tolist() == [[2, 1], [4, 3]]
    assert (plain.speaks_for, plain.margin) == (1, 2.0)
    assert (mirrored.speaks_for, mirrored.margin) == (0, 2.0)
    alone = margin_parts(columns[:1], dataclasses.replace(spec, views=None), logits[:1], labels[:1])
    assert alone[0].box == (0.0, 0.0, 1.0)

"""Bands of calibration errors under perfect calibration, and the level of the kernel test."""

import numpy as np
import pytest

from components.shared.stats import calibration_error, metrics, miscalibration
from components.shared.stats.metrics import Bools, Floats, softmax


def _draw(rng: np.random.Generator, slope: float) -> tuple[Bools, Floats, list[str]]:
    """Return 40 groups of about 10 frames whose log-odds are `slope` times the true ones.

    Half of the frames of a group repeat one label, so that frames are not independent.
    """
    member = np.repeat(np.arange(40), rng.integers(5, 16, 40))
    margin = rng.normal(0, 2, 40)[member] + rng.normal(0, 0.2, len(member))
    shared = rng.random(40)[member]
    uniform = np.where(rng.random(len(member)) < 0.5, shared, rng.random(len(member)))
    truth = uniform < metrics.sigmoid(margin)
    return truth, metrics.sigmoid(slope * margin), [f"{k:02d}" for k in member]


def test_errors_of_a_calibrated_model_lie_in_their_band() -> None:
    rng = np.random.default_rng(0)
    inside = dict.fromkeys(("ece_top_label", "ece_positive_class", "ece_equal_mass"), 0)
    p_values = []

    for seed in range(100):
        truth, probability, groups = _draw(rng, 1.0)
        bands = miscalibration.consistency_bands(truth, probability, groups, 200, seed)
        errors = {
            "ece_top_label": calibration_error.ece_top_label(truth, probability),
            "ece_positive_class": calibration_error.ece_positive_class(truth, probability),
            "ece_equal_mass": calibration_error.ece_equal_mass(
                *calibration_error.top_label(truth, probability)
            ),
        }
        for name, error in errors.items():
            inside[name] += error <= (bands[name] or (0, 0))[1]
        p_value = miscalibration.calibration_p_value(truth, probability, groups, 200, seed)
        assert p_value is not None
        p_values.append(p_value)

    assert min(inside.values()) >= 88
    assert np.mean(np.array(p_values) <= 0.05) <= 0.12


def test_an_overconfident_model_is_found() -> None:
    rng = np.random.default_rng(1)
    p_values = [
        miscalibration.calibration_p_value(*_draw(rng, 4.0), 200, seed) for seed in range(20)
    ]
    assert np.mean(np.array(p_values, dtype=float) <= 0.05) > 0.7


def test_bands_of_single_samples_are_those_of_drawn_labels() -> None:
    """Without groups, Broecker and Smith's resampling of labels gives the same bound."""
    rng = np.random.default_rng(2)
    probability = rng.random(400)
    truth = rng.random(400) < probability
    groups = [str(k) for k in range(400)]
    bands = miscalibration.consistency_bands(truth, probability, groups, 1000, 0)
    drawn = [
        calibration_error.ece_positive_class(rng.random(400) < probability, probability)
        for _ in range(1000)
    ]
    assert bands["ece_positive_class"] is not None
    assert bands["ece_positive_class"][1] == pytest.approx(np.quantile(drawn, 0.95), rel=0.1)


def test_several_classes() -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 1.5, (300, 4))
    labels = (rng.gumbel(size=(300, 4)) + logits).argmax(axis=1)
    groups = [str(k // 5) for k in range(300)]
    bands = miscalibration.consistency_bands(labels, softmax(logits), groups, 200, 0)
    assert set(bands) == {
        "ece_top_label",
        "ece_equal_mass",
        "ce_debiased",
        "mce_top_label",
        "ece_classwise",
    }
    error = calibration_error.ece_classwise(labels, softmax(logits))
    assert bands["ece_classwise"] is not None
    assert 0 < error <= bands["ece_classwise"][1] * 1.2

    calibrated = miscalibration.calibration_p_value(labels, softmax(logits), groups, 200, 0)
    too_sure = miscalibration.calibration_p_value(labels, softmax(3 * logits), groups, 200, 0)
    assert too_sure is not None
    assert calibrated is not None
    assert too_sure < 0.01 < calibrated


def test_few_groups_have_neither() -> None:
    truth, probability = np.arange(30) % 2 == 0, np.full(30, 0.5)
    groups = [str(k % 15) for k in range(30)]
    bands = miscalibration.consistency_bands(truth, probability, groups, 100, 0)
    assert set(bands.values()) == {None}
    assert miscalibration.calibration_p_value(truth, probability, groups, 100, 0) is None

"""Calibration errors against reference values, published ones, and their conventions."""

from pathlib import Path

import numpy as np
import pytest

from components.shared.stats import calibration_error as errors
from components.shared.stats.metrics import Bools, Floats, nll_multiclass, softmax
from tests.components.shared.stats.cal40 import PROBABILITY, TRUTH

CORRECT, CONFIDENCE = errors.top_label(TRUTH, PROBABILITY)


def _rmsce(outcome: Bools, probability: Floats, n_bins: int = errors.N_BINS) -> float:
    """Root mean squared calibration error over equal-width bins, with its bias."""
    data = errors.reliability(outcome, probability, n_bins)
    return float(np.sqrt((data.fraction * data.gap**2).sum()))


def test_top_label_reference_values() -> None:
    assert errors.ece_top_label(TRUTH, PROBABILITY, 10) == pytest.approx(
        0.07093483631879889, abs=1e-15
    )
    assert errors.mce(CORRECT, CONFIDENCE, 10) == pytest.approx(0.4538317210654874, abs=1e-15)
    assert _rmsce(CORRECT, CONFIDENCE, 10) == pytest.approx(0.1293459846, abs=5e-11)
    assert errors.ece_top_label(TRUTH, PROBABILITY, 15) == pytest.approx(
        0.110922398940139, abs=1e-15
    )
    assert errors.mce(CORRECT, CONFIDENCE, 15) == pytest.approx(0.47377409, abs=5e-9)
    assert errors.ece_equal_mass(CORRECT, CONFIDENCE, 10) == pytest.approx(
        0.12056160178890481, abs=1e-15
    )
    assert errors.ece_equal_mass(CORRECT, CONFIDENCE, 15) == pytest.approx(
        0.12348862402714919, abs=1e-15
    )


def test_positive_class_reference_values() -> None:
    assert errors.ece_positive_class(TRUTH, PROBABILITY, 10) == pytest.approx(
        0.1663033386, abs=5e-11
    )
    assert errors.ece_positive_class(TRUTH, PROBABILITY, 15) == pytest.approx(
        0.1814777722, abs=5e-11
    )


def test_debiased_reference_value() -> None:
    """The value of uncertainty-calibration for 10 bins of equal mass; the biased one is 0.1668."""
    assert errors.ce_debiased(CORRECT, CONFIDENCE, 10) == pytest.approx(0.02722559, abs=5e-9)


def test_debiasing_removes_most_of_the_error_of_a_calibrated_forecast() -> None:
    rng = np.random.default_rng(0)
    probability = rng.random((200, 300))
    found = [errors.ce_debiased(rng.random(300) < p, p) for p in probability]
    assert np.mean(found) < 0.5 * np.mean([_rmsce(rng.random(300) < p, p) for p in probability])


def test_full_confidence_counts() -> None:
    wrong = np.zeros(5, bool)
    assert errors.ece(wrong, np.ones(5)) == 1.0
    assert errors.reliability(wrong, np.ones(5)).weight.tolist() == [0] * 14 + [5]


def test_two_columns_and_one_probability_agree() -> None:
    both = np.column_stack([1 - PROBABILITY, PROBABILITY])
    assert errors.ece_top_label(TRUTH.astype(np.int64), both) == errors.ece_top_label(
        TRUTH, PROBABILITY
    )


def test_a_matrix_of_weights_gives_what_its_rows_give() -> None:
    weights = np.random.default_rng(0).integers(0, 3, (5, 40)).astype(float)
    for function in (
        errors.ece,
        errors.mce,
        errors.ece_equal_mass,
        errors.ce_debiased,
    ):
        np.testing.assert_allclose(
            function(TRUTH, PROBABILITY, 10, weights),
            [function(TRUTH, PROBABILITY, 10, w) for w in weights],
        )


def test_published_table_of_resnet110_on_cifar10(real_logits: Path) -> None:
    """Row of Kull et al. (NeurIPS 2019), tables 3 and 4, which print classwise-ECE as a sum."""
    with np.load(real_logits, allow_pickle=False) as data:
        logits, labels = data["test_logits"].astype(np.float64), data["test_labels"]
    probabilities = softmax(logits)
    assert nll_multiclass(labels, logits) == pytest.approx(0.358274, abs=2e-6)
    assert errors.ece_top_label(labels, probabilities) == pytest.approx(0.047503, abs=2e-5)
    assert 10 * errors.ece_classwise(labels, probabilities) == pytest.approx(0.09829, abs=5e-6)
    assert np.mean(probabilities.argmax(axis=1) != labels) == pytest.approx(0.0644)

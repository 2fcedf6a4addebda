"""Metrics of K classes equal scikit-learn's, also under the weights of replicates."""

import numpy as np
import pytest
import sklearn.metrics

from components.shared.stats import metrics, multiclass
from components.shared.stats.metrics import Floats, Integers

SIZES = (2, 3, 5, 43)


def _draw(n_classes: int, n: int = 900) -> tuple[Integers, Floats, Floats]:
    """Truth (N,), probabilities (N, K) and weights (3, N) of which none lacks a class."""
    rng = np.random.default_rng(n_classes)
    truth = np.concatenate([np.arange(n_classes), rng.integers(0, n_classes, n - n_classes)])
    logits = rng.normal(0, 1, (n, n_classes)) + 1.5 * np.eye(n_classes)[truth]
    weights = rng.integers(1, 4, (3, n)).astype(np.float64)
    return truth, metrics.softmax(logits), weights


@pytest.mark.parametrize("n_classes", SIZES)
def test_means_over_classes_are_those_of_scikit_learn(n_classes: int) -> None:
    truth, probability, weights = _draw(n_classes)
    decision = probability.argmax(axis=1)
    for name, function in (
        ("precision", multiclass.macro_precision),
        ("recall", multiclass.macro_recall),
        ("f1", multiclass.macro_f1),
    ):
        expected = getattr(sklearn.metrics, f"{name}_score")
        found = function(truth, decision, n_classes)
        assert found == pytest.approx(expected(truth, decision, average="macro", zero_division=0))
        weighted = [
            expected(truth, decision, average="macro", sample_weight=w, zero_division=0)
            for w in weights
        ]
        np.testing.assert_allclose(function(truth, decision, n_classes, weights), weighted)

    matrix = multiclass.confusion_matrix(truth, decision, n_classes)
    np.testing.assert_array_equal(matrix, sklearn.metrics.confusion_matrix(truth, decision))


@pytest.mark.parametrize("n_classes", SIZES)
def test_areas_are_means_of_each_class_against_the_rest(n_classes: int) -> None:
    truth, probability, weights = _draw(n_classes)
    one_hot = np.eye(n_classes)[truth]
    for ours, theirs in (
        (metrics.auroc, sklearn.metrics.roc_auc_score),
        (metrics.average_precision, sklearn.metrics.average_precision_score),
    ):
        expected = theirs(one_hot, probability, average="macro")
        assert multiclass.macro_ranking(ours, truth, probability) == pytest.approx(expected)
        found = multiclass.macro_ranking(ours, truth, probability, weights)
        assert found[1] == pytest.approx(theirs(one_hot, probability, sample_weight=weights[1]))


def test_a_class_without_samples_is_left_out_of_the_means() -> None:
    truth, decision = np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1])
    assert multiclass.macro_recall(truth, decision, 4) == pytest.approx(0.75)
    assert multiclass.macro_precision(truth, decision, 4) == pytest.approx(1.0)
    assert multiclass.macro_f1(truth, decision, 4) == pytest.approx((2 / 3 + 1) / 2)
    probability = np.eye(4)[decision]
    assert multiclass.macro_ranking(metrics.auroc, truth, probability) == pytest.approx(0.875)
    without = np.array([[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    areas = multiclass.macro_ranking(metrics.auroc, truth, probability, without)
    assert np.isnan(areas[0])
    assert multiclass.macro_recall(truth, decision, 4, without)[0] == pytest.approx(0.5)


def test_a_class_never_decided_has_precision_zero() -> None:
    counts = multiclass.class_counts(np.array([0, 1]), np.array([0, 0]), 3)
    np.testing.assert_array_equal(counts.precision, [0.5, 0, 0])
    np.testing.assert_array_equal(counts.recall, [1, 0, np.nan])
    np.testing.assert_allclose(counts.f1, [2 / 3, 0, 0])


@pytest.mark.parametrize("n_classes", [2, 3, 43])
def test_matthews_correlation_is_scikit_learns(n_classes: int) -> None:
    rng = np.random.default_rng(n_classes)
    truth = rng.integers(0, n_classes, 300)
    decision = np.where(rng.random(300) < 0.6, truth, rng.integers(0, n_classes, 300))
    weights = rng.integers(0, 4, (3, 300)).astype(float)
    expected = [
        sklearn.metrics.matthews_corrcoef(truth, decision, sample_weight=w) for w in weights
    ]
    np.testing.assert_allclose(
        multiclass.mcc(truth, decision, n_classes, weights), expected, rtol=0, atol=1e-12
    )
    assert multiclass.mcc(truth, 0 * decision, n_classes) == 0

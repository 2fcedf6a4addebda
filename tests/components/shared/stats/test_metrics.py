"""Metrics against scikit-learn, reference values, and their own weighted form."""

import numpy as np
import pytest
import sklearn.metrics as peer

from components.shared.stats import metrics
from tests.components.shared.stats.cal40 import DECISION, MARGIN, PROBABILITY, TRUTH

DECIDED = {
    "accuracy": peer.accuracy_score,
    "balanced_accuracy": peer.balanced_accuracy_score,
    "mcc": peer.matthews_corrcoef,
    "f1": peer.f1_score,
}
RANKED = {"auroc": peer.roc_auc_score, "average_precision": peer.average_precision_score}


def _tied(seed: int, count: int = 200) -> tuple[metrics.Bools, metrics.Floats]:
    rng = np.random.default_rng(seed)
    return rng.random(count) < 0.3, rng.integers(0, 12, count) / 4 - 1.0


def test_reference_values() -> None:
    assert metrics.accuracy(TRUTH, DECISION) == 0.875
    assert metrics.mcc(TRUTH, DECISION) == pytest.approx(0.7671227843410362, abs=1e-15)
    assert metrics.brier(TRUTH, PROBABILITY) == pytest.approx(0.10999616491260947, abs=1e-15)
    assert metrics.nll(TRUTH, MARGIN) == pytest.approx(0.34503342876967913, abs=1e-15)
    assert metrics.auroc(TRUTH, MARGIN) == pytest.approx(0.9886039886, abs=5e-11)
    assert metrics.average_precision(TRUTH, MARGIN) == pytest.approx(0.9949245541, abs=1e-10)
    assert metrics.coverage_at_precision(TRUTH, PROBABILITY, 0.95) == 27 / 40


def test_brier_over_two_classes_is_twice_that_of_the_positive_class() -> None:
    both = np.column_stack([1 - PROBABILITY, PROBABILITY])
    expected = 2 * metrics.brier(TRUTH, PROBABILITY)
    assert metrics.brier_multiclass(TRUTH.astype(np.int64), both) == pytest.approx(
        expected, abs=1e-15
    )


@pytest.mark.parametrize("name", DECIDED)
@pytest.mark.parametrize("seed", range(3))
def test_decisions_agree_with_scikit_learn(name: str, seed: int) -> None:
    truth, scores = _tied(seed)
    weights = np.random.default_rng(seed).integers(0, 4, len(truth)).astype(float)
    decision = scores > 0.3
    ours = getattr(metrics, name)
    assert ours(truth, decision) == pytest.approx(DECIDED[name](truth, decision), abs=1e-12)
    expected = DECIDED[name](truth, decision, sample_weight=weights)
    assert ours(truth, decision, weights) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", RANKED)
@pytest.mark.parametrize("seed", range(3))
def test_rankings_with_ties_agree_with_scikit_learn(name: str, seed: int) -> None:
    truth, scores = _tied(seed)
    weights = np.random.default_rng(seed).integers(0, 4, len(truth)).astype(float)
    ours = getattr(metrics, name)
    assert ours(truth, scores) == pytest.approx(RANKED[name](truth, scores), abs=1e-12)
    expected = RANKED[name](truth, scores, sample_weight=weights)
    assert ours(truth, scores, weights) == pytest.approx(expected, abs=1e-12)


def test_roc_curve_agrees_with_scikit_learn() -> None:
    truth, scores = _tied(5)
    fpr, tpr, thresholds = peer.roc_curve(truth, scores, drop_intermediate=False)
    ours = metrics.roc_curve(truth, scores)
    for found, expected in zip(ours, (fpr, tpr, thresholds), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_losses_agree_with_scikit_learn() -> None:
    labels = np.random.default_rng(0).integers(0, 5, 300)
    logits = np.random.default_rng(1).normal(0, 3, (300, 5))
    expected = peer.log_loss(labels, metrics.softmax(logits))
    assert metrics.nll_multiclass(labels, logits) == pytest.approx(expected, abs=1e-12)
    assert metrics.brier(TRUTH, PROBABILITY) == pytest.approx(
        peer.brier_score_loss(TRUTH, PROBABILITY), abs=1e-15
    )


def test_a_matrix_of_weights_gives_what_its_rows_give() -> None:
    truth, scores = _tied(7)
    weights = np.random.default_rng(3).integers(0, 3, (6, len(truth))).astype(float)
    decision = scores > 0
    for name in DECIDED:
        function = getattr(metrics, name)
        np.testing.assert_allclose(
            function(truth, decision, weights), [function(truth, decision, w) for w in weights]
        )
    for name in (*RANKED, "nll"):
        function = getattr(metrics, name)
        np.testing.assert_allclose(
            function(truth, scores, weights), [function(truth, scores, w) for w in weights]
        )
    batch = metrics.coverage_at_precision(truth, scores, 0.4, weights)
    np.testing.assert_allclose(
        batch, [metrics.coverage_at_precision(truth, scores, 0.4, w) for w in weights]
    )


def test_integer_weights_mean_repeated_samples() -> None:
    truth, scores = _tied(9)
    weights = np.random.default_rng(2).integers(0, 4, len(truth))
    rows = np.repeat(np.arange(len(truth)), weights)
    for name in (*RANKED, "nll"):
        function = getattr(metrics, name)
        assert function(truth, scores, weights.astype(float)) == pytest.approx(
            function(truth[rows], scores[rows])
        )


def test_what_does_not_exist_is_said() -> None:
    positive, negative = np.ones(4, bool), np.zeros(4, bool)
    scores = np.arange(4.0)
    assert np.isnan(metrics.auroc(positive, scores))
    assert np.isnan(metrics.average_precision(negative, scores))
    assert metrics.mcc(positive, positive) == 0
    assert metrics.f1(negative, negative) == 0
    assert metrics.balanced_accuracy(positive, positive) == 1
    assert metrics.coverage_at_precision(negative, scores, 0.5) is None
    assert np.isnan(metrics.coverage_at_precision(negative, scores, 0.5, np.ones((2, 4)))).all()


def test_extreme_margins_do_not_overflow() -> None:
    margin = np.array([-1e6, -800.0, 0.0, 800.0, 1e6])
    assert metrics.sigmoid(margin).tolist() == [0, 0, 0.5, 1, 1]
    assert metrics.softmax(np.column_stack([np.zeros(5), margin]))[:, 1].tolist() == [
        0,
        0,
        0.5,
        1,
        1,
    ]
    assert metrics.nll(np.array([True]), np.array([-1e6])) == 1e6


def test_a_single_value_is_a_float() -> None:
    assert isinstance(metrics.mcc(TRUTH, DECISION), float)
    assert isinstance(metrics.auroc(TRUTH, MARGIN), float)

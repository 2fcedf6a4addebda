"""What explains a decision: estimates with a known answer."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import ks_2samp

from components.detect_drift.comparison import compare
from components.detect_drift.explanations import (
    OUTSIDE_QUANTILE,
    label_shift,
    margin_shift,
    margins_of,
    outside_support,
)
from components.shared.contracts.outcomes import Outcomes
from components.shared.data.drift_reference import DriftReference, as_half
from components.shared.policies.policy import Policy, softmax_policy

BINARY = Outcomes.of(("None", "Roadwork"), "binary", "Roadwork")
THREE = Outcomes.of(("a", "b", "c"), "multiclass")
WIDTH = 5


def _policy(outcomes: Outcomes) -> Policy:
    return softmax_policy(outcomes, 0.0)


def _logits(truth: np.ndarray, n_classes: int, accuracy: float, seed: int) -> np.ndarray:
    """Logits whose decision is the truth with this probability, else another class."""
    rng = np.random.default_rng(seed)
    wrong = (truth + rng.integers(1, n_classes, len(truth))) % n_classes
    decided = np.where(rng.random(len(truth)) < accuracy, truth, wrong)
    return 3.0 * np.eye(n_classes)[decided] + rng.normal(scale=0.01, size=(len(truth), n_classes))


def _reference(labels: np.ndarray, logits: np.ndarray, seed: int = 0) -> DriftReference:
    rng = np.random.default_rng(seed)
    n_classes = logits.shape[1]
    return DriftReference(
        class_names=("None", "Roadwork") if n_classes == 2 else ("a", "b", "c"),
        features=as_half(rng.normal(size=(len(labels), WIDTH)).astype(np.float32)),
        logits=logits.astype(np.float32),
        labels=labels,
        support=as_half(rng.normal(size=(300, WIDTH)).astype(np.float32)),
        probe=as_half(np.ones(WIDTH, dtype=np.float32)),
        n_groups=len(labels),
    )


@pytest.mark.parametrize("outcomes", [BINARY, THREE], ids=["binary", "multiclass"])
def test_changed_shares_of_the_outcomes_are_estimated(outcomes: Outcomes) -> None:
    """The intervals contain the true shares in about 95 of 100 draws: 0.88 of 80 or more."""
    n_classes = len(outcomes.class_names)
    before, after = (
        ([0.8, 0.2], [0.4, 0.6]) if n_classes == 2 else ([0.5, 0.3, 0.2], [0.2, 0.2, 0.6])
    )
    rng, covered, estimates, decided = np.random.default_rng(0), [], [], []
    for draw in range(80):
        old, new = rng.choice(n_classes, 400, p=before), rng.choice(n_classes, 300, p=after)
        reference = _reference(old, _logits(old, n_classes, 0.85, seed=2 * draw))
        logits = _logits(new, n_classes, 0.85, seed=2 * draw + 1)
        found = label_shift(_policy(outcomes), reference, logits, seed=draw)
        assert found.estimated is not None
        assert found.interval_95 is not None
        assert found.outcomes == outcomes.names
        assert sum(found.estimated) == pytest.approx(1)
        bounds = zip(after, found.interval_95, strict=True)
        covered += [low <= true <= high for true, (low, high) in bounds]
        estimates.append(found.estimated)
        decided.append(found.decided)
    assert np.mean(covered) >= 0.88
    np.testing.assert_allclose(np.mean(estimates, axis=0), after, atol=0.02)
    # The decisions alone are biased towards the old shares.
    assert abs(np.mean(decided, axis=0)[-1] - after[-1]) > 0.02


def test_shares_are_not_estimated_from_decisions_that_say_nothing() -> None:
    labels = np.arange(100) % 2
    blind = _logits(labels, 2, 0.5, seed=1)
    found = label_shift(_policy(BINARY), _reference(labels, blind), blind, seed=0)
    assert found.estimated is None
    assert "do not tell the outcomes apart well enough (condition number" in found.reason

    alone = np.zeros(100, dtype=np.int64)
    found = label_shift(_policy(BINARY), _reference(alone, blind), blind, seed=0)
    assert found.reason == "the reference has no image of Roadwork"


def test_margins_are_compared_by_their_distribution() -> None:
    rng = np.random.default_rng(0)
    old, new = rng.normal(size=80), rng.normal(0.8, size=50)
    found = margin_shift(old, new)
    assert (found.statistic, found.p_value) == tuple(ks_2samp(old, new))
    assert (found.reference, found.new) == (np.median(old), np.median(new))
    logits = _logits(np.arange(30) % 3, 3, 1.0, seed=0)
    assert (margins_of(_policy(THREE), logits) > 0).all()
    two = _logits(np.arange(30) % 2, 2, 1.0, seed=0)
    np.testing.assert_allclose(margins_of(_policy(BINARY), two), two[:, 1] - two[:, 0])


def test_images_far_from_the_training_data_lie_outside_its_support() -> None:
    rng = np.random.default_rng(5)
    labels = np.arange(400) % 2
    reference = _reference(labels, _logits(labels, 2, 0.9, seed=1))
    same = outside_support(reference, as_half(rng.normal(size=(400, WIDTH)).astype(np.float32)))
    assert same.expected == pytest.approx(1 - OUTSIDE_QUANTILE)
    assert same.share == pytest.approx(same.expected, abs=0.04)
    assert same.interval_95[0] < same.share < same.interval_95[1]
    assert same.p_value > 0.01
    assert 0.3 < np.median(same.quantile) < 0.7
    np.testing.assert_array_equal(same.outside, same.quantile > OUTSIDE_QUANTILE)

    far = outside_support(reference, as_half(10 + rng.normal(size=(30, WIDTH)).astype(np.float32)))
    assert (far.share, far.quantile.min()) == (1, 1)
    assert far.p_value < 1e-6

    # A feature that never varies in training has no scale of its own.
    constant = dataclasses.replace(reference, support=np.ones((20, WIDTH), dtype=np.float16))
    assert np.isfinite(outside_support(constant, reference.features).quantile).all()


def test_the_classifier_alone_decides() -> None:
    rng = np.random.default_rng(1)
    labels = np.arange(60) % 2
    reference = _reference(labels, _logits(labels, 2, 0.9, seed=1))
    same = as_half(rng.normal(size=(40, WIDTH)).astype(np.float32))
    # Other margins with the same features: the classifier sees features, and so there is no alarm.
    found = compare(
        reference,
        _policy(BINARY),
        same,
        20 + _logits(np.ones(40, dtype=np.int64), 2, 1.0, seed=3),
        false_alarm_rate=0.01,
        n_permutations=199,
        seed=0,
    )
    assert found.margins.p_value < 0.001
    assert found.is_drift == (found.classifier.p_value <= 0.01) is False
    assert found.to_json()["decided_by"] == "classifier"
    assert found.scores[found.driving(1)[0]] == found.scores.max()
    assert len(found.driving(100)) == 40

"""The exact sweep against brute force, reference values, plateaus and constraints."""

import numpy as np
import pytest
import sklearn.metrics as peer
from hypothesis import given, settings
from hypothesis import strategies as st

from components.shared.contracts.errors import InfeasibleError
from components.shared.policies.fitting.sweep import (
    OBJECTIVES,
    best_threshold,
    best_thresholds,
    sweep,
)
from components.shared.stats.metrics import sigmoid
from tests.components.shared.stats.cal40 import MARGIN, PROBABILITY, TRUTH

PEERS = {
    "mcc": peer.matthews_corrcoef,
    "f1": peer.f1_score,
    "balanced_accuracy": peer.balanced_accuracy_score,
}


def test_reference_optimum() -> None:
    best = best_threshold(sweep(TRUTH, PROBABILITY, "mcc"))
    assert best.objective == pytest.approx(0.8958064164776166, abs=1e-15)
    assert best.threshold == pytest.approx(0.16758047235929652, abs=1e-15)


def test_margins_give_the_same_decisions() -> None:
    best = best_threshold(sweep(TRUTH, MARGIN, "mcc"))
    assert best.threshold == pytest.approx(-1.605)
    assert ((best.threshold < MARGIN) == (PROBABILITY > 0.16758047235929652)).all()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_rule_agrees_with_scikit_learn(objective: str) -> None:
    rng = np.random.default_rng(1)
    truth, scores = rng.random(80) < 0.4, rng.integers(0, 20, 80) / 3
    result = sweep(truth, scores, objective)
    assert len(result.thresholds) == len(np.unique(scores)) + 1
    for threshold, value, fnr, fpr in zip(
        result.thresholds,
        result.objective,
        result.false_negative_rate,
        result.false_positive_rate,
        strict=True,
    ):
        decision = scores > threshold
        assert value == pytest.approx(PEERS[objective](truth, decision), abs=1e-12)
        assert fnr == pytest.approx((~decision[truth]).mean())
        assert fpr == pytest.approx(decision[~truth].mean())


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(-4, 4)), min_size=2, max_size=30),
    st.sampled_from(tuple(OBJECTIVES)),
    st.sampled_from([0.0, 0.2, 1.0]),
)
def test_no_rule_is_better(samples: list[tuple[bool, int]], objective: str, ceiling: float) -> None:
    truth = np.array([label for label, _ in samples])
    scores = np.array([score for _, score in samples], dtype=float)
    if truth.all() or not truth.any():
        return
    result = sweep(truth, scores, objective)
    feasible = [
        rule
        for rule in range(len(result.thresholds))
        if (~(scores > result.thresholds[rule])[truth]).mean() <= ceiling
    ]
    if feasible == [0]:
        with pytest.raises(InfeasibleError):
            best_threshold(result, ceiling)
        return
    best = best_threshold(result, ceiling)
    decision = scores > best.threshold
    assert best.objective == pytest.approx(result.objective[feasible].max())
    assert best.false_negative_rate == pytest.approx((~decision[truth]).mean())
    assert best.false_positive_rate == pytest.approx(decision[~truth].mean())
    assert best.threshold not in scores


def test_separable_classes_are_cut_in_the_middle_of_the_gap() -> None:
    best = best_threshold(
        sweep(np.array([False, False, True, True]), np.array([0.0, 1.0, 4.0, 9.0]), "mcc")
    )
    assert (best.threshold, best.objective) == (2.5, 1.0)


def test_a_plateau_of_several_rules_is_cut_in_its_middle() -> None:
    """Balanced accuracy is 0.75 from 0 to 4: the tie at 1 gains a negative, loses a positive."""
    truth = np.array([False, False, True, True])
    assert (
        best_threshold(sweep(truth, np.array([0.0, 1.0, 1.0, 4.0]), "balanced_accuracy")).threshold
        == 2.0
    )


def test_the_middle_of_a_plateau_is_never_an_attained_score() -> None:
    truth = np.array([False, False, True, True])
    assert (
        best_threshold(sweep(truth, np.array([0.0, 1.0, 1.0, 2.0]), "balanced_accuracy")).threshold
        == 1.5
    )


def test_of_several_plateaus_the_widest_counts() -> None:
    truth = np.array([False, True, True, False, False, True])
    scores = np.array([0.0, 1.0, 2.0, 2.0, 4.0, 7.0])
    result = sweep(truth, scores, "balanced_accuracy")
    assert np.flatnonzero(result.objective == result.objective.max()).tolist() == [1, 4]
    assert best_threshold(result).threshold == 5.5


def test_adjacent_floats_are_separated() -> None:
    low = 0.1
    scores = np.array([low, np.nextafter(low, 1)])
    best = best_threshold(sweep(np.array([False, True]), scores, "mcc"))
    assert (scores > best.threshold).tolist() == [False, True]


def test_saturated_probabilities_are_told_apart_on_the_margin() -> None:
    truth, margin = np.array([False, False, True, True]), np.array([0.0, 40.0, 60.0, 80.0])
    assert len(np.unique(sigmoid(margin))) == 2
    assert best_threshold(sweep(truth, margin, "mcc")).objective == 1


def test_ceiling_of_the_false_negative_rate() -> None:
    truth = np.array([True] * 10 + [False] * 90)
    scores = np.r_[np.arange(10.0), np.full(90, 3.5)]
    free = best_threshold(sweep(truth, scores, "mcc"))
    assert free.false_negative_rate == 0.4
    assert best_threshold(sweep(truth, scores, "mcc"), 0.1).false_negative_rate <= 0.1


def test_an_impossible_ceiling_names_what_is_possible() -> None:
    truth, scores = np.array([True, True, False, True]), np.array([0.0, 2.0, 1.0, 3.0])
    with pytest.raises(InfeasibleError, match=r"max_fnr=0.1 .* is 0\.3333"):
        best_threshold(sweep(truth, scores, "mcc"), 0.1)


def test_replicates_equal_sweeps_of_the_resampled_data() -> None:
    rng = np.random.default_rng(3)
    weights = rng.integers(0, 3, (30, 40)).astype(float)
    found = best_thresholds(sweep(TRUTH, MARGIN, "mcc", weights))
    for row, threshold in zip(weights.astype(int), found, strict=True):
        rows = np.repeat(np.arange(40), row)
        alone = best_threshold(sweep(TRUTH[rows], MARGIN[rows], "mcc"))
        np.testing.assert_array_equal(MARGIN[rows] > threshold, MARGIN[rows] > alone.threshold)


def test_a_replicate_of_one_class_has_no_threshold() -> None:
    weights = np.stack([TRUTH.astype(float), np.ones(40)])
    found = best_thresholds(sweep(TRUTH, MARGIN, "mcc", weights))
    assert np.isnan(found).tolist() == [True, False]

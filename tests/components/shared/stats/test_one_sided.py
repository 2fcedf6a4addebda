"""The one-sided test: exact where an exact test is known, and its bound is its inverse."""

import numpy as np
import pytest
from scipy.stats import binom, norm

from components.shared.stats.bootstrap import Statistic, membership
from components.shared.stats.metrics import Bools, weighted_mean
from components.shared.stats.one_sided import (
    PairedDifference,
    exponential_tail,
    paired_contributions,
)

EACH_ALONE = np.arange(200)


def _accuracy(correct: Bools) -> Statistic:
    return lambda weights: weighted_mean(correct, weights)


def _difference(n_gained: int, n_lost: int, count: int = 200) -> PairedDifference:
    """Accuracies of two models that differ on some images, one image a group."""
    ours, theirs = np.ones(count, dtype=bool), np.ones(count, dtype=bool)
    theirs[:n_gained] = False
    ours[n_gained : n_gained + n_lost] = False
    found = paired_contributions(_accuracy(ours), _accuracy(theirs), np.arange(count), 0)
    assert found is not None
    return found


@pytest.mark.parametrize(("n_gained", "n_lost"), [(8, 2), (30, 10), (5, 0), (3, 9), (40, 5)])
def test_of_two_accuracies_it_is_mcnemars_exact_test(n_gained: int, n_lost: int) -> None:
    exact = binom.cdf(n_lost, n_gained + n_lost, 0.5)
    assert _difference(n_gained, n_lost).p_value() == pytest.approx(exact, rel=1e-9)


def test_the_tail_is_that_of_drawn_weights() -> None:
    rng = np.random.default_rng(3)
    for shift in (-0.1, 0.0, 0.1, 0.2):
        coefficients = rng.normal(shift, 1, 60) * rng.exponential(1, 60)
        drawn = (rng.exponential(size=(20_000, 60)) @ coefficients <= 0).mean()
        assert exponential_tail(coefficients) == pytest.approx(drawn, abs=0.011)


@pytest.mark.parametrize(("gain", "count"), [(1e-3, 400), (0.01, 400), (0.1, 30), (0.5, 50)])
def test_the_tail_of_one_loss_has_a_closed_form(gain: float, count: int) -> None:
    """P(gain sum E_i <= E_0) = (1 + gain)^-count, from a half down to 1e-9."""
    coefficients = np.append(np.full(count, gain), -1.0)
    exact = (1 + gain) ** -float(count)
    assert exponential_tail(coefficients) == pytest.approx(exact, rel=1e-12)
    assert exponential_tail(-coefficients) == pytest.approx(1 - exact, rel=1e-12)


def test_a_far_tail_is_that_of_the_normal_distribution_which_many_equal_groups_approach() -> None:
    contributions = np.random.default_rng(0).normal(0.25, 1, 400)
    score = contributions.sum() / np.sqrt((contributions**2).sum())
    assert 1e-7 < norm.sf(score) < 1e-4
    assert exponential_tail(contributions) == pytest.approx(norm.sf(score), rel=0.25)


def test_nothing_varies() -> None:
    assert exponential_tail(np.zeros(20)) == 1.0
    assert _difference(0, 0).p_value() == 1.0
    # Every image contributes the margin, and the one that is added is wrong: (1 + .01 / .99)^-200.
    assert _difference(0, 0).p_value(-0.01) == pytest.approx(0.99**200)


def test_a_rare_loss_that_the_sample_misses_is_allowed_for() -> None:
    """Nineteen of twenty groups gain .01; one loses .19, and 5 % of the samples show none."""
    rng = np.random.default_rng(5)
    wrong = {"seen": 0, "with one more": 0}
    for _ in range(400):
        values = np.where(rng.random(60) < 0.05, -0.19, 0.01)
        wrong["seen"] += exponential_tail(values) <= 0.01
        wrong["with one more"] += exponential_tail(np.append(values, -0.19)) <= 0.01
    assert wrong["seen"] >= 12
    assert wrong["with one more"] <= 4 + 3 * np.sqrt(4)


def test_the_worst_group_is_that_of_either_model() -> None:
    """Groups of 5 images; the first model has all of one right, the second none of another."""
    count, member = 100, np.arange(100) // 5
    ours, theirs = np.arange(count) % 5 > 0, np.arange(count) % 5 > 1
    ours[:5], theirs[5:10] = True, False
    found = paired_contributions(_accuracy(ours), _accuracy(theirs), member, 0)
    assert found is not None
    assert found.worst == pytest.approx(-1.0)
    assert found.typical_fraction == 1 / 20


@pytest.mark.parametrize("level", [0.05, 1e-3, 1e-6])
def test_the_bound_is_the_margin_at_which_the_p_value_is_the_level(level: float) -> None:
    found = _difference(40, 12)
    bound = found.lower_bound(level)
    assert bound < found.value
    assert found.p_value(bound) <= level
    assert found.p_value(bound + 1e-4) > level


def test_a_smaller_level_has_a_lower_bound() -> None:
    bounds = [_difference(40, 12).lower_bound(level) for level in (0.1, 1e-2, 1e-4, 1e-8)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[-1] < 0


def test_groups_count_not_images() -> None:
    """Ten copies of every image say nothing new."""
    ours, theirs = np.ones(200, dtype=bool), np.arange(200) >= 12
    once = paired_contributions(_accuracy(ours), _accuracy(theirs), EACH_ALONE, 0)
    member = membership([f"g{i}" for i in np.repeat(EACH_ALONE, 10).tolist()], 2000)
    often = paired_contributions(
        _accuracy(np.repeat(ours, 10)), _accuracy(np.repeat(theirs, 10)), member, 0
    )
    assert once is not None
    assert often is not None
    assert often.p_value() == pytest.approx(once.p_value(), rel=1e-6)


def test_too_few_groups_and_undefined_metrics_have_no_test() -> None:
    alone = np.arange(15)
    assert paired_contributions(_accuracy(alone > 1), _accuracy(alone > 2), alone, 0) is None

    def undefined(weights: object) -> float:
        del weights
        return float("nan")

    assert paired_contributions(undefined, _accuracy(EACH_ALONE > 2), EACH_ALONE, 0) is None


def test_many_groups_are_tested_in_blocks() -> None:
    count = 3000
    rng = np.random.default_rng(1)
    ours, theirs = rng.random(count) < 0.9, rng.random(count) < 0.88
    found = paired_contributions(_accuracy(ours), _accuracy(theirs), np.arange(count), 0)
    assert found is not None
    assert len(found.influence) == 400
    sigma = np.sqrt((0.9 * 0.1 + 0.88 * 0.12) / count)
    error = float(np.sqrt((found.influence**2).sum()))
    assert error == pytest.approx(sigma, rel=0.1)
    expected = norm.sf(found.value / error)
    assert found.p_value() == pytest.approx(expected, rel=0.25)

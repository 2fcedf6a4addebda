"""The threshold from few samples: against 0.5, against the samples' best, and its limits."""

import numpy as np
import pytest
from scipy.stats import norm

from components.shared.contracts.errors import InfeasibleError
from components.shared.policies.fitting.sweep import best_threshold, sweep
from components.shared.policies.fitting.threshold import (
    FnrLimit,
    fit_threshold,
    positive_probability,
)
from components.shared.stats.metrics import Bools, Floats, sigmoid

NO_LIMIT = FnrLimit(1.0, None)


def _each(count: int) -> list[str]:
    return [f"g{i}" for i in range(count)]


def _draw(rng: np.random.Generator, count: int, shift: float) -> tuple[Bools, Floats]:
    """Log-odds of a balanced problem, calibrated but for the shift."""
    truth = rng.random(count) < 0.5
    return truth, shift + 2.5 * (rng.normal(size=count) + (2 * truth - 1) * 1.25)


def _gain(shift: float, count: int) -> tuple[float, float]:
    """Mean accuracy above that of 0.5, in truth: of the chosen threshold, of the samples' best."""
    chosen, best = [], []
    for seed in range(60):
        truth, margin = _draw(np.random.default_rng([seed, count]), count, shift)
        fit = fit_threshold(truth, margin, _each(count), objective="mcc", limit=NO_LIMIT, seed=seed)
        chosen.append(_accuracy(fit.best.threshold, shift))
        best.append(_accuracy(best_threshold(sweep(truth, margin, "mcc")).threshold, shift))
    half = _accuracy(0.0, shift)
    return float(np.mean(chosen)) - half, float(np.mean(best)) - half


def _accuracy(threshold: float, shift: float) -> float:
    cut = (threshold - shift) / 2.5
    return float(0.5 * norm.sf(cut - 1.25) + 0.5 * norm.cdf(cut + 1.25))


def test_where_half_is_right_few_samples_do_not_move_the_threshold() -> None:
    chosen, best = _gain(shift=0.0, count=56)
    assert best < -0.01
    assert chosen > -0.002


@pytest.mark.parametrize("count", [112, 500])
def test_where_half_is_wrong_the_threshold_follows_the_samples(count: int) -> None:
    """Logits that overrate the positive class, as after training with class weights."""
    chosen, best = _gain(shift=1.5, count=count)
    assert chosen > 0.03
    assert chosen > best


def test_a_shift_is_seen_in_the_probabilities() -> None:
    truth, margin = _draw(np.random.default_rng(0), 400, 0.0)
    np.testing.assert_array_equal(
        positive_probability(truth, margin, _each(400), 0), sigmoid(margin)
    )
    shifted = positive_probability(truth, margin + 2, _each(400), 0)
    assert shifted == pytest.approx(sigmoid(margin), abs=0.15)


def test_samples_of_one_group_leave_the_probabilities_as_they_are() -> None:
    truth, margin = _draw(np.random.default_rng(0), 60, 3.0)
    np.testing.assert_array_equal(
        positive_probability(truth, margin, ["a"] * 60, 0), sigmoid(margin)
    )


def test_half_is_taken_where_it_decides_all_samples_alike() -> None:
    truth, margin = np.arange(40) >= 20, np.r_[np.linspace(-9, -3, 20), np.linspace(0.5, 9, 20)]
    fit = fit_threshold(truth, margin, _each(40), objective="mcc", limit=NO_LIMIT, seed=0)
    assert (fit.best.threshold, fit.best.objective) == (0.0, 1.0)


def test_the_sweep_of_certain_probabilities_is_that_of_the_truth() -> None:
    truth, margin = _draw(np.random.default_rng(1), 80, 0.0)
    exact, expected = sweep(truth, margin, "f1"), sweep(truth.astype(float), margin, "f1")
    np.testing.assert_array_equal(exact.objective, expected.objective)
    np.testing.assert_array_equal(exact.false_negative_rate, expected.false_negative_rate)


@pytest.mark.parametrize("count", [100, 400])
def test_the_limit_on_the_samples_is_exceeded_in_half_of_the_draws_the_bound_is_not(
    count: int,
) -> None:
    """The false negative rate of the population, of margins N(1.2, 1.4) of the positives."""
    exceeded = {None: 0, 0.1: 0}
    for delta in exceeded:
        for seed in range(150):
            rng = np.random.default_rng([seed, count])
            truth = rng.random(count) < 0.3
            margin = np.where(truth, rng.normal(1.2, 1.4, count), rng.normal(-1, 1, count))
            try:
                fit = fit_threshold(
                    truth,
                    margin,
                    _each(count),
                    objective="mcc",
                    limit=FnrLimit(0.1, delta),
                    seed=seed,
                )
            except InfeasibleError:
                continue
            assert fit.fnr_upper_bound is None or fit.fnr_upper_bound <= 0.1
            exceeded[delta] += norm.cdf(fit.best.threshold, 1.2, 1.4) > 0.1
    assert exceeded[None] > 0.35 * 150
    assert exceeded[0.1] <= 0.15 * 150  # 0.1 and three standard errors would be 0.17


def test_the_bound_counts_one_image_of_each_group() -> None:
    """Forty frames of four places are four observations: 0 of 4 leaves a bound of .44."""
    truth, margin = np.arange(80) < 40, np.where(np.arange(80) < 40, 3.0, -3.0)
    margin += 0.01 * np.arange(80)
    groups = [f"place {i // 10}" for i in range(80)]
    limit = FnrLimit(0.5, 0.1)
    fit = fit_threshold(truth, margin, groups, objective="mcc", limit=limit, seed=0)
    assert fit.fnr_upper_bound == pytest.approx(1 - 0.1 ** (1 / 4))
    with pytest.raises(InfeasibleError, match=r"max_fnr=0.2 .* is 0\.4377; increase max_fnr"):
        fit_threshold(truth, margin, groups, objective="mcc", limit=FnrLimit(0.2, 0.1), seed=0)

"""Finite-sample bounds against reference values."""

import numpy as np
import pytest

from components.shared.stats import bounds


@pytest.mark.parametrize(
    ("risk", "count", "binomial", "upper"),
    [
        (0.0, 100, 0.00592053, 0.0295130),
        (0.01, 200, 0.00233629, 0.0311426),
        (0.02, 500, 0.00046001, 0.0336883),
        (0.04, 1000, 0.0806366, 0.0517534),
    ],
)
def test_p_values_and_upper_bounds(risk: float, count: int, binomial: float, upper: float) -> None:
    errors = round(risk * count)
    assert bounds.binomial_p_value(errors, count, 0.05) == pytest.approx(
        binomial, abs=5e-9 if count < 1000 else 5e-7
    )
    assert bounds.clopper_pearson_upper(errors, count, 0.05) == pytest.approx(upper, abs=5e-8)


def test_fewest_samples_without_an_error() -> None:
    assert [bounds.fewest_samples(a, 0.05) for a in (0.01, 0.02, 0.05, 0.1)] == [299, 149, 59, 29]
    assert (
        bounds.clopper_pearson_upper(0, 58, 0.05)
        > 0.05
        >= bounds.clopper_pearson_upper(0, 59, 0.05)
    )


def test_all_correct_has_a_bound() -> None:
    """Forty of forty correct: the two-sided 95 % interval of the accuracy is [0.91190, 1]."""
    assert 1 - bounds.clopper_pearson_upper(0, 40, 0.025) == pytest.approx(0.91190, abs=5e-6)
    assert bounds.clopper_pearson_upper(40, 40, 0.025) == 1


def test_dkw() -> None:
    for count, both, one in (
        (100, 0.12239, 0.10730),
        (500, 0.05473, 0.04799),
        (2000, 0.02737, 0.02399),
    ):
        assert bounds.dkw_one_sided(count, 0.1) == pytest.approx(one, abs=5e-6)
        assert bounds.dkw_one_sided(count, 0.05) == pytest.approx(both, abs=5e-6)
    assert bounds.dkw_one_sided(10000, 0.1) == pytest.approx(0.01073, abs=5e-6)


def test_no_sample_proves_nothing() -> None:
    assert bounds.binomial_p_value(0, 0, 0.05) == 1
    assert bounds.clopper_pearson_upper(0, 0, 0.05) == 1


def test_exact_p_values_are_valid() -> None:
    rng = np.random.default_rng(0)
    errors = rng.binomial(200, 0.05, 20000)
    for delta in (0.01, 0.05, 0.1):
        assert (bounds.binomial_p_value(errors, 200, 0.05) <= delta).mean() <= delta + 0.005


def test_bets_rarely_win_against_a_fair_or_worse_game() -> None:
    """A p-value of at most delta in at most a fraction delta of all draws, heavy rows included."""
    rng = np.random.default_rng(0)
    size = np.where(rng.random((200, 4000)) < 0.2, 1.0, 0.1)
    hard = (size == 1).astype(float)
    for rate in (0.1 + 0 * hard, 0.02 + 0.115 * hard):
        loss = rng.random(size.shape) < rate
        mean = float((size * (rate - 0.1)).mean())
        assert mean > -0.002
        p_values = bounds.betting_p_value(size * (loss - 0.1), 0.9)
        assert (p_values <= 0.1).mean() <= 0.1


def test_bets_win_where_the_mean_is_lower() -> None:
    loss = np.random.default_rng(0).random((300, 50)) < 0.03
    assert (bounds.betting_p_value(loss - 0.1, 0.9) <= 0.01).mean() > 0.9
    assert bounds.betting_p_value(np.zeros((50, 2)), 0.9).tolist() == [1, 1]

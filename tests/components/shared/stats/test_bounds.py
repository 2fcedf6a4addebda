"""Finite-sample bounds against reference values."""

import numpy as np
import pytest

from components.shared.stats import bounds


@pytest.mark.parametrize(
    ("risk", "count", "hoeffding_bentkus", "binomial", "upper"),
    [
        (0.0, 100, 0.00592053, 0.00592053, 0.0295130),
        (0.01, 200, 0.00635071, 0.00233629, 0.0311426),
        (0.02, 500, 0.00125043, 0.00046001, 0.0336883),
        (0.04, 1000, 0.219193, 0.0806366, 0.0517534),
    ],
)
def test_p_values_and_upper_bounds(
    risk: float, count: int, hoeffding_bentkus: float, binomial: float, upper: float
) -> None:
    errors = round(risk * count)
    assert bounds.hoeffding_bentkus_p_value(risk, count, 0.05) == pytest.approx(
        hoeffding_bentkus, abs=5e-9 if count < 1000 else 5e-7
    )
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


def test_all_correct_has_an_interval() -> None:
    assert bounds.clopper_pearson_interval(40, 40, 0.95) == pytest.approx((0.91190, 1), abs=5e-6)
    low, high = bounds.clopper_pearson_interval(35, 40, 0.95)
    assert low < 0.875 < high


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
        assert (bounds.hoeffding_bentkus_p_value(errors / 200, 200, 0.05) <= delta).mean() <= delta

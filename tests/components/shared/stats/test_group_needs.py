"""What policies need of groups, against the functions that draw and certify."""

import pytest

from components.shared.policies.calibration_split import draw_calibration_split
from components.shared.stats import jackknife
from components.shared.stats.bounds import binomial_p_value, fewest_samples
from components.shared.stats.group_needs import (
    INTERVAL_GROUPS,
    calibrator_needs,
    interval_need,
    least_certifiable,
    n_tested_groups,
    policy_need,
)


@pytest.mark.parametrize("n_groups", [4, 5, 9, 30, 64])
@pytest.mark.parametrize("tuning_fraction", [0.1, 0.3, 0.9])
def test_tested_groups_are_those_of_the_policies_own_draw(
    n_groups: int, tuning_fraction: float
) -> None:
    groups = [f"place{number // 2}" for number in range(2 * n_groups)]
    split = draw_calibration_split(groups, tuning_fraction, seed=0)
    assert n_tested_groups(n_groups, tuning_fraction) == len(split.calibration)


def test_the_number_needed_is_the_least_that_certifies_without_an_error() -> None:
    need = policy_need("scrc", 13, 0.3, 0.05, 0.1)
    assert (need.needs, need.has, need.met) == (45, 9, False)
    assert binomial_p_value(0, 45, 0.05) <= 0.1 < binomial_p_value(0, 44, 0.05)
    assert need.line() == (
        "scrc at alpha=0.05, delta=0.1: 9 independent groups in VAL_CALIB, at least 45 needed:"
        " will be infeasible"
    )


def test_the_least_level_is_that_of_groups_without_an_error() -> None:
    level = least_certifiable(9, 0.1)
    assert binomial_p_value(0, 9, level) == pytest.approx(0.1)
    assert fewest_samples(level, 0.1) == 9
    assert least_certifiable(0, 0.1) == 1


def test_the_rarest_class_and_the_intervals_are_named() -> None:
    (need,) = calibrator_needs({"None": 12, "Roadwork": 2})
    assert (need.needs, need.has, need.met) == (2, 2, True)
    assert "class Roadwork" in need.line()
    assert jackknife.MIN_GROUPS == INTERVAL_GROUPS
    assert "needed: will be left out" in interval_need(15).line()
    assert [interval_need(n).met for n in (15, 16)] == [False, True]

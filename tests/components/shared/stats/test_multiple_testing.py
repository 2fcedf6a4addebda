"""Procedures for several tests: known decisions, and the family-wise error in simulation."""

import numpy as np
import pytest
from scipy import stats

from components.shared.stats.multiple_testing import METHODS, bonferroni, fixed_sequence, holm

P_VALUES = np.array([0.01, 0.04, 0.03, 0.2])


def test_decisions_are_those_of_the_definitions() -> None:
    assert fixed_sequence(P_VALUES, 0.05).tolist() == [True, True, True, False]
    assert fixed_sequence(P_VALUES[::-1], 0.05).tolist() == [False] * 4
    assert holm(P_VALUES, 0.05).tolist() == [True, False, False, False]
    assert holm(P_VALUES, 0.1).tolist() == [True, True, True, False]
    assert bonferroni(P_VALUES, 0.2).tolist() == [True, True, True, False]


def test_holm_certifies_whatever_bonferroni_does() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        p_values = rng.uniform(0, 0.1, 6)
        assert not (bonferroni(p_values, 0.1) & ~holm(p_values, 0.1)).any()


@pytest.mark.parametrize("method", METHODS)
def test_the_family_wise_error_is_at_most_delta(method: str) -> None:
    delta, n_draws = 0.1, 2000
    rng = np.random.default_rng(1)
    wrong = sum(METHODS[method](rng.uniform(size=8), delta).any() for _ in range(n_draws))
    assert stats.binomtest(wrong, n_draws, delta, alternative="greater").pvalue > 1e-3

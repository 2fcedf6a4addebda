"""The simulation in short: guarantees of several classes hold for every policy."""

import numpy as np
import pytest

from tests.simulations.multiclass import DELTA, POLICIES, simulate

DRAWS = 25
BOUND = DELTA + 3 * np.sqrt(DELTA * (1 - DELTA) / DRAWS)


@pytest.mark.slow
@pytest.mark.parametrize("name", POLICIES)
def test_guarantees_of_several_classes_hold(name: str) -> None:
    found = simulate(name, 800, 4, DRAWS)
    assert found.infeasible <= 0.8
    assert found.violations <= BOUND
    assert found.coverage_too_low <= BOUND
    assert found.coverage > 0.1

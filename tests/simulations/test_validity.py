"""The simulation in short: promises hold for every policy and population, and coverage follows."""

from pathlib import Path

import numpy as np
import pytest

from tests.simulations.validity import ALPHA, DELTA, POLICIES, real, shapes, simulate

DRAWS = 80
BOUND = DELTA + 3 * np.sqrt(DELTA * (1 - DELTA) / DRAWS)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("shape", ["easy", "hard", "tied"])
def test_promises_hold(policy: str, shape: str) -> None:
    found = simulate(policy, shapes()[shape], 1000, DRAWS, ALPHA, mapie=False)
    assert found.violations <= BOUND
    assert 0.1 < found.coverage <= found.oracle + 0.02
    assert found.coverage > 0.25 * found.oracle


def test_promises_hold_on_resampled_real_logits(real_logits: Path) -> None:
    found = simulate("scrc", real(real_logits), 1000, DRAWS, 0.02, mapie=False)
    assert found.violations <= BOUND
    assert found.coverage > 0.6 * found.oracle


def test_the_populations_are_what_they_say() -> None:
    oracle = {name: population.oracle(ALPHA) for name, population in shapes().items()}
    assert oracle["easy"] == pytest.approx(0.872, abs=0.005)
    assert oracle["hard"] == pytest.approx(0.4, abs=0.001)
    for population in shapes().values():
        threshold = float(np.quantile(population.scores, 0.5))
        accepted = population.scores >= threshold
        assert population.at(threshold) == (accepted.mean(), population.error_rate[accepted].mean())

"""The least confidence within an error rate, beside an enumeration of all thresholds."""

import numpy as np
import pytest

from components.shared.policies.fitting.answers import least_thresholds, sweep_answers


@pytest.mark.parametrize("seed", range(40))
def test_the_least_threshold_is_that_of_an_enumeration(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 25))
    confidence = rng.integers(0, 8, n) / 2.0
    error, alpha = rng.random(n) < 0.4, float(rng.choice([0.0, 0.2, 0.34, 0.5]))
    weights = rng.integers(0, 3, (5, n)).astype(np.float64)
    weights[:, 0] += 1  # a replicate is never empty
    result = sweep_answers(confidence, error, -1.0, weights)
    for w, found in zip(weights, least_thresholds(result, alpha), strict=True):
        expected = np.nan
        for bound in np.unique(confidence):
            answered = w * (confidence >= bound)
            if answered.sum() > 0 and (answered * error).sum() <= alpha * answered.sum() + 1e-9:
                expected = bound
                break
        if np.isnan(expected):
            assert np.isnan(found)
        else:
            assert ((confidence >= found) == (confidence >= expected)).all()


def test_neighbouring_floats_are_separated() -> None:
    low = 1.0
    high = np.nextafter(low, 2)
    result = sweep_answers(np.array([low, high]), np.array([True, False]), 0.0)
    threshold = least_thresholds(result, 0.1)[0]
    assert low < threshold <= high
    assert result.error_rate.tolist() == [0.5, 0.0]
    assert result.coverage.tolist() == [1.0, 0.5]

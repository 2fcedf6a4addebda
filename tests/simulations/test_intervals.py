"""The simulation of intervals in short: coverage, level of differences, level of the test."""

import numpy as np
import pytest

from tests.simulations.intervals import POPULATIONS, calibration_level, coverage, paired_level

SETS = 40


@pytest.mark.parametrize("population", ["mild", "skew"])
def test_intervals_cover_with_few_groups(population: str) -> None:
    found = coverage(POPULATIONS[population], 16, SETS)
    covered = [value.student for value in found.values() if value.none < 0.5]
    # 0.95 less three standard errors in each metric; the mean of all is known better.
    assert min(covered) >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / SETS)
    assert np.mean(covered) > 0.91
    assert all(value.zero_width == 0 for value in found.values())


def test_equal_models_rarely_differ() -> None:
    for _, found in paired_level(True, 16, SETS).values():
        assert found <= 0.05 + 3 * np.sqrt(0.95 * 0.05 / SETS)


def test_calibrated_models_are_rarely_called_miscalibrated() -> None:
    level = calibration_level(24, SETS)["test"]
    power = calibration_level(54, SETS, slope=3.0)["test"]
    assert level <= 0.05 + 3 * np.sqrt(0.95 * 0.05 / SETS)
    assert power > 0.8

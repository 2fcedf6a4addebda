"""Calibration groups are tuned on as a whole or tested by one image, never both."""

import numpy as np
import pytest

from components.shared.contracts.errors import InfeasibleError
from components.shared.policies.calibration_split import draw_calibration_split, one_per_group

GROUPS = [f"place{index % 25}" for index in range(200)]


def test_no_group_is_in_both_parts_and_each_tested_group_gives_one_image() -> None:
    drawn = draw_calibration_split(GROUPS, 0.4, seed=1)
    tuning = {GROUPS[row] for row in drawn.tuning}
    tested = [GROUPS[row] for row in drawn.calibration]
    assert len(tuning) == 10
    assert len(drawn.tuning) == 80
    assert len(tested) == len(set(tested)) == 15
    assert not tuning & set(tested)


def test_each_image_of_a_group_is_drawn_equally_often() -> None:
    counts = np.zeros(8)
    for seed in range(1600):
        counts[one_per_group(["a"] * 8 + ["b"], seed)[0]] += 1
    assert counts.min() > 140
    assert counts.max() < 260


def test_three_groups_are_too_few() -> None:
    with pytest.raises(InfeasibleError, match=r"VAL_CALIB has 3 group\(s\), .* at least 4"):
        draw_calibration_split(["a", "b", "c"], 0.5, seed=0)

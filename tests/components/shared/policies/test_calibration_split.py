"""Calibration groups are tuned on as a whole or tested by one image, never both."""

import numpy as np
import pytest
from scipy.stats import binom

from components.shared.contracts.errors import InfeasibleError
from components.shared.policies.calibration_split import draw_calibration_split, one_per_group
from components.shared.stats.bounds import fewest_samples

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


def test_a_draw_by_class_would_break_the_guarantee() -> None:
    """The example of docs/policies.md, exactly: 64 groups, 45 tested, the model errs on a class.

    No error among the tested certifies 5 %. A group of the class that is always tuned on, where
    there is one, is missing among the tested.
    """
    n_of_class = binom(64, 0.05)
    tested_at_random = binom(45, 0.05).pmf(0)
    tested_by_class = n_of_class.pmf(0) + n_of_class.pmf(1)
    assert fewest_samples(0.05, 0.1) == 45
    assert tested_at_random == pytest.approx(0.0994, abs=1e-4)
    assert tested_by_class == pytest.approx(0.164, abs=5e-4)


def test_the_tuning_part_is_drawn_without_regard_to_class() -> None:
    """Each group is tested equally often, so that tested groups are a simple random sample."""
    tested = np.zeros(25)
    for seed in range(400):
        for row in draw_calibration_split(GROUPS, 0.4, seed).calibration:
            tested[row % 25] += 1
    assert tested.min() > 195
    assert tested.max() < 285


def test_a_group_beyond_the_limit_is_named() -> None:
    with pytest.raises(InfeasibleError, match=r"max_group_images=7, .* a group of 8 images"):
        draw_calibration_split(GROUPS, 0.4, seed=0, max_group_images=7)
    drawn = draw_calibration_split(GROUPS, 0.4, seed=0, max_group_images=8)
    assert len(drawn.calibration_images) == 8 * len(drawn.calibration)

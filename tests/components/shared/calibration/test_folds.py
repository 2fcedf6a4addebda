"""Folds are of whole groups and share the rare classes."""

import numpy as np
import pytest

from components.shared.calibration.folds import group_folds
from components.shared.contracts.errors import DataError

LABELS = np.random.default_rng(0).integers(0, 2, 60)
GROUPS = [f"g{i // 2}" for i in range(60)]


def test_folds_hold_whole_groups_and_every_class() -> None:
    folds = group_folds(LABELS, GROUPS, 0)
    assert (folds[::2] == folds[1::2]).all()
    assert set(folds) == set(range(5))
    assert all(set(LABELS[folds == k]) == {0, 1} for k in range(5))
    np.testing.assert_array_equal(folds, group_folds(LABELS, GROUPS, 0))


def test_a_class_of_one_group_is_in_one_of_two_folds() -> None:
    folds = group_folds(np.array([0, 0, 0, 0, 1, 1]), ["a", "b", "c", "d", "e", "e"], 0)
    assert set(folds) == {0, 1}
    assert folds[4] == folds[5]


def test_one_group_cannot_be_folded() -> None:
    with pytest.raises(DataError, match="all 3 samples are of one group; folds need two groups"):
        group_folds(np.array([0, 1, 1]), ["a"] * 3, 0)

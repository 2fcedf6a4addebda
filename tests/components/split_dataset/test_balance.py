"""The salt of a split: the best of all candidates, and groups that are held out."""

import numpy as np
import pytest

from components.shared.contracts.errors import DataError
from components.shared.data.splits import SPLITS
from components.split_dataset.balance import Groups, best_salt, refuse_missing, text_table

FRACTIONS = {"TRAIN": 0.7, "VAL_SELECT": 0.1, "VAL_CALIB": 0.1, "VAL_TEST": 0.1}
NAMES = [f"place{index // 4}" for index in range(400)]
LABELS = [index % 2 for index in range(400)]


def _error(groups: Groups, salt: str) -> float:
    counts = groups.counts(groups.splits(salt, FRACTIONS))
    wanted = np.array([FRACTIONS[split] for split in SPLITS])[:, None] * groups.per_class.sum(
        axis=0
    )
    return float((((counts - wanted) / wanted) ** 2).sum())


def test_the_best_salt_is_the_best_of_all_candidates() -> None:
    groups = Groups.of(NAMES, LABELS, 2, set())
    chosen = best_salt(groups, FRACTIONS, seed=3, n_salts=20)
    errors = {f"3-{candidate}": _error(groups, f"3-{candidate}") for candidate in range(20)}
    assert errors[chosen] == min(errors.values()) < max(errors.values())
    assert groups.counts(groups.splits(chosen, FRACTIONS)).sum() == len(NAMES)


def test_held_out_groups_and_no_others_form_val_test() -> None:
    held_out = {"place3", "place50"}
    groups = Groups.of(NAMES, LABELS, 2, held_out)
    splits = groups.splits(best_salt(groups, FRACTIONS, seed=0, n_salts=5), FRACTIONS)
    test = {name for name, split in zip(groups.names, splits, strict=True) if split == 3}
    assert test == held_out


def test_a_class_that_a_split_lacks_is_named() -> None:
    counts = np.array([[5, 5], [1, 0], [2, 2], [2, 2]])
    refuse_missing(counts, ["None", "Roadwork"], 0, "0-1")
    with pytest.raises(DataError, match="VAL_SELECT has 0 of class Roadwork"):
        refuse_missing(counts, ["None", "Roadwork"], 1, "0-1")
    assert "TRAIN" in text_table(counts, ["None", "Roadwork"])

"""Assignments of groups: feasible first, then balanced, drawn, and the same in any order."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from components.shared.contracts.errors import DataError
from components.shared.data.splits import SPLITS
from components.split_dataset.balance import (
    Groups,
    Limits,
    best_assignment,
    hashed,
    imbalance,
    refuse_missing,
    stratified,
    text_table,
)

FRACTIONS = dict(zip(SPLITS, (0.7, 0.1, 0.1, 0.1), strict=True))
LIMITS = Limits(5, 2)
CALIB = SPLITS.index("VAL_CALIB")


def _data(
    n_groups: Sequence[int], seed: int = 0, sizes: tuple[int, int] = (4, 40)
) -> tuple[list[str], list[int]]:
    """Group and label of each image, for a number of groups of each class."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(n_groups)), n_groups)
    size = rng.integers(sizes[0], sizes[1] + 1, len(labels))
    names = np.array([f"place{number}" for number in rng.permutation(len(labels))])
    return np.repeat(names, size).tolist(), np.repeat(labels, size).tolist()


def _groups(n_groups: Sequence[int], seed: int = 0, sizes: tuple[int, int] = (4, 40)) -> Groups:
    return Groups.of(*_data(n_groups, seed, sizes), len(n_groups))


@pytest.mark.parametrize("n_groups", [(8, 16), (12, 100), (30, 300)])
@pytest.mark.parametrize("seed", range(5))
def test_every_split_gets_its_groups_and_images_of_every_class(
    n_groups: tuple[int, ...], seed: int
) -> None:
    """Hold-out finding F1: a salt that broke the limits was taken for its balance, and F2: the
    limit counted images, so that one group of a class could be all of VAL_CALIB.
    """
    groups = _groups(n_groups, seed)
    found = best_assignment(groups, FRACTIONS, LIMITS, 0, 64)
    assert groups.counts(found.splits).min() >= 5
    assert groups.group_counts(found.splits).min() >= 1
    assert groups.group_counts(found.splits)[CALIB].min() >= 2
    refuse_missing(groups, found.splits, ["a", "b"], LIMITS, 64)


@pytest.mark.parametrize("seed", range(3))
def test_43_classes_of_8_groups_are_split_or_no_split_exists(seed: int) -> None:
    """Images of 1 to 11 a group, as the traffic signs have."""
    groups = _groups((8,) * 43, seed, sizes=(1, 11))
    found = best_assignment(groups, FRACTIONS, LIMITS, 0, 64)
    lacking = sum(int(part.sum()) for part in LIMITS.missing(groups, found.splits))
    of_class = [groups.per_class[groups.per_class[:, k] > 0, k] for k in range(43)]
    assert (lacking == 0) == all(_splittable(sizes) for sizes in of_class)


def _splittable(sizes: np.ndarray) -> bool:
    """Whether any of all assignments of a class's groups meets the limits."""
    for splits in itertools.product(range(4), repeat=len(sizes)):
        images = np.bincount(splits, weights=sizes, minlength=4)
        if images.min() >= 5 and splits.count(CALIB) >= 2:
            return True
    return False


def test_a_class_of_too_few_groups_is_refused_whichever_the_fractions() -> None:
    groups = _groups((4, 30))
    found = best_assignment(groups, FRACTIONS, LIMITS, 0, 8)
    with pytest.raises(
        DataError,
        match=r"cannot be split four ways, whichever the fractions: class sign has \d+ images in 4"
        r" group\(s\), needs 20 in 5 \(2 in VAL_CALIB, 1 in every other split\)",
    ):
        refuse_missing(groups, found.splits, ["sign", "none"], LIMITS, 8)


def test_what_was_not_found_is_not_called_impossible() -> None:
    groups = Groups.of(["a"] * 30 + list("bcdef"), [0] * 35, 1)
    found = best_assignment(groups, FRACTIONS, Limits(5, 1), 0, 8)
    with pytest.raises(
        DataError, match=r"are not met by any of 8 assignment\(s\) tried: TRAIN has 3"
    ):
        refuse_missing(groups, found.splits, ["sign"], Limits(5, 1), 8)


def test_the_chosen_candidate_is_the_most_balanced_one() -> None:
    groups = _groups((40, 40))
    found = best_assignment(groups, FRACTIONS, LIMITS, 3, 20)
    candidates = [stratified(groups, FRACTIONS, LIMITS, f"3-{number}") for number in range(20)]
    errors = [imbalance(groups, FRACTIONS, candidate) for candidate in candidates]
    assert imbalance(groups, FRACTIONS, found) == min(errors) < max(errors)
    assert found.salt in {candidate.salt for candidate in candidates}


def test_a_surplus_costs_no_more_than_a_lack() -> None:
    """Finding F1: a surplus of 900 % outweighed a class that a split did not have."""
    groups = _groups((8, 16))
    everything_in = [
        imbalance(
            groups, FRACTIONS, hashed(groups, {"TRAIN": 1, **dict.fromkeys(SPLITS[1:], 0)}, "")
        )
    ]
    assert max(everything_in) <= len(SPLITS) * 2


def test_the_assignment_does_not_depend_on_the_order_of_the_images() -> None:
    names, labels = _data((40, 40))
    order = np.random.default_rng(1).permutation(len(names))
    shuffled = Groups.of([names[i] for i in order], [labels[i] for i in order], 2)
    first = best_assignment(Groups.of(names, labels, 2), FRACTIONS, LIMITS, 0, 4)
    second = best_assignment(shuffled, FRACTIONS, LIMITS, 0, 4)
    assert first.salt == second.salt
    np.testing.assert_array_equal(first.splits, second.splits)


def test_every_group_has_the_same_chance_of_a_split_whatever_its_size() -> None:
    """400 salts: a group of 160 is in VAL_TEST in a tenth of them, the large ones too."""
    groups = _groups((80, 80))
    in_test = np.mean(
        [stratified(groups, FRACTIONS, LIMITS, str(salt)).splits == 3 for salt in range(400)],
        axis=0,
    )
    sizes = groups.per_class.sum(axis=1)
    assert in_test.mean() == pytest.approx(0.1, abs=0.005)
    assert in_test.max() < 0.1 + 5 * np.sqrt(0.09 / 400)
    assert abs(np.corrcoef(in_test, sizes)[0, 1]) < 0.25
    assert in_test[sizes > np.quantile(sizes, 0.8)].mean() == pytest.approx(0.1, abs=0.02)


def test_groups_that_have_a_split_keep_it_and_new_ones_restore_the_balance() -> None:
    names, labels = _data((60, 200))
    places = sorted(set(names))
    earlier = dict.fromkeys(places[:100], "TRAIN")
    groups = Groups.of(names, labels, 2, earlier=earlier)
    found = best_assignment(groups, FRACTIONS, LIMITS, 0, 8)
    split_of = dict(zip(groups.names, found.splits.tolist(), strict=True))
    assert all(split_of[place] == 0 for place in earlier)
    assert groups.counts(found.splits).sum(axis=1) / len(names) == pytest.approx(
        list(FRACTIONS.values()), abs=0.03
    )


def test_held_out_groups_and_no_others_form_val_test() -> None:
    names, labels = _data((40, 40))
    held_out = {"place3", "place50"}
    groups = Groups.of(names, labels, 2, held_out=held_out)
    found = best_assignment(groups, FRACTIONS, LIMITS, 0, 5)
    splits = dict(zip(groups.names, found.splits.tolist(), strict=True))
    assert {name for name, split in splits.items() if split == 3} == held_out
    by_hash = hashed(groups, FRACTIONS, "a").splits
    np.testing.assert_array_equal(by_hash == 3, found.splits == 3)


def test_groups_of_several_classes_count_for_each() -> None:
    names = [f"place{index // 4}" for index in range(400)]
    labels = [index % 2 for index in range(400)]
    groups = Groups.of(names, labels, 2)
    found = best_assignment(groups, FRACTIONS, LIMITS, 0, 5)
    assert groups.group_counts(found.splits).tolist() == [[70, 70], [10, 10], [10, 10], [10, 10]]


def test_columns_are_as_wide_as_their_names() -> None:
    """Hold-out 2: names of more than 12 characters ran together."""
    counts = np.arange(8).reshape(4, 2) * 1000
    table = text_table(counts, counts // 100, ["speed_limit_30", "speed_limit_80"])
    first = [line.split()[0] for line in table]
    assert first == ["class", "speed_limit_30", "speed_limit_80", "all", "fraction"]
    assert len({len(line) for line in table}) == 1
    assert "1000 (10)" in "\n".join(table)


def test_names_of_classes_forge_no_line_of_the_table() -> None:
    table = text_table(
        np.ones((4, 2), dtype=np.int64), np.ones((4, 2), dtype=np.int64), ["a\nb", "\x1b[31m"]
    )
    assert [line.split()[0] for line in table[1:3]] == [r"a\nb", r"\x1b[31m"]

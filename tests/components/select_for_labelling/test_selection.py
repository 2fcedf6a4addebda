"""Deferred images first, then uncertain ones that differ, one of each set of near-duplicates."""

import numpy as np
import pytest

from components.select_for_labelling.selection import choose

RNG = np.random.default_rng(0)
N = 400
FEATURES = RNG.normal(size=(N, 8)).astype(np.float32)
CONFIDENCE = RNG.random(N)
ALONE = np.arange(N)
NONE = np.zeros(N, dtype=bool)


def test_deferred_images_come_first_in_the_order_of_their_confidence() -> None:
    deferred = NONE.copy()
    deferred[[3, 50, 200]] = True
    choice = choose(FEATURES, CONFIDENCE, deferred, ALONE, 10, seed=0)
    expected = sorted([3, 50, 200], key=lambda row: CONFIDENCE[row])
    assert choice.rows[:3].tolist() == expected
    assert choice.deferred.tolist() == [True] * 3 + [False] * 7
    assert len(set(choice.rows.tolist())) == 10


def test_of_many_deferred_images_those_that_differ_are_chosen() -> None:
    # Ten places of forty images each: without distances, some place would hardly be missed by none.
    centres = np.eye(10, 16, dtype=np.float32)
    features = np.repeat(centres, N // 10, axis=0) + 0.01 * RNG.normal(size=(N, 16)).astype("f4")
    choice = choose(features, CONFIDENCE, ~NONE, ALONE, 10, seed=0)
    assert choice.deferred.all()
    assert len(set((choice.rows // (N // 10)).tolist())) == 10


def test_one_of_each_set_of_near_duplicates_the_least_confident() -> None:
    groups = ALONE // 4
    choice = choose(FEATURES, CONFIDENCE, NONE, groups, 50, seed=0)
    assert len(set(groups[choice.rows].tolist())) == 50
    for row in choice.rows:
        members = np.flatnonzero(groups == groups[row])
        assert CONFIDENCE[row] == CONFIDENCE[members].min()

    deferred = NONE.copy()
    deferred[7] = True  # of the second set, whatever its confidence
    assert choose(FEATURES, CONFIDENCE, deferred, groups, 50, seed=0).rows[0] == 7


def test_uncertain_images_are_chosen_more_often() -> None:
    drawn = np.concatenate(
        [choose(FEATURES, CONFIDENCE, NONE, ALONE, 10, seed=seed).rows for seed in range(20)]
    )
    # Of the hundred least confident, which are the candidates; their mean is an eighth.
    assert CONFIDENCE[drawn].max() <= np.sort(CONFIDENCE)[99]
    assert CONFIDENCE[drawn].mean() < np.sort(CONFIDENCE)[:100].mean()


@pytest.mark.parametrize("count", [N, N + 5])
def test_where_there_are_no_more_images_all_are_chosen(count: int) -> None:
    choice = choose(FEATURES, CONFIDENCE, NONE, ALONE, count, seed=0)
    assert sorted(choice.rows.tolist()) == ALONE.tolist()


def test_equal_images_do_not_shorten_the_choice() -> None:
    choice = choose(np.ones_like(FEATURES), CONFIDENCE, NONE, ALONE, 30, seed=0)
    assert len(set(choice.rows.tolist())) == 30


def test_the_choice_depends_on_the_seed_alone() -> None:
    first, again, other = (
        choose(FEATURES, CONFIDENCE, NONE, ALONE, 20, seed=seed).rows.tolist() for seed in (1, 1, 2)
    )
    assert first == again != other

"""The comparison: better, not worse, and what it says."""

import json

import numpy as np
import pytest

from components.promote_bundle.comparison import compare, margin_of, too_few_groups
from components.promote_bundle.config import PromoteConfig
from components.promote_bundle.objectives import objective_of
from tests.components.promote_bundle.predicted import SOFTMAX, model, predictions

TRUTH = np.arange(600) % 2 == 0
MCC = objective_of("mcc", SOFTMAX)
BETTER, REFRESH = PromoteConfig(), PromoteConfig(promotion="not_worse", max_loss=0.05)


def test_better_by_more_than_the_margin() -> None:
    ours, theirs = model(TRUTH, 0.05, 0), model(TRUTH, 0.2, 1)
    found = compare(BETTER, MCC, ours, theirs, 1e-4)
    assert found.passes
    assert found.gain == pytest.approx(found.challenger - found.champion)
    assert found.lower_bound is not None
    assert 0 < found.lower_bound < found.gain
    assert (found.n_images, found.n_groups) == (600, 600)
    assert found.sentence.endswith(" is above zero")
    assert not compare(PromoteConfig(min_gain=0.25), MCC, ours, theirs, 1e-4).passes


@pytest.mark.parametrize(("level", "passes"), [(0.05, True), (1e-6, False)])
def test_the_same_gain_is_enough_for_the_first_comparison_and_not_for_a_late_one(
    level: float, passes: bool
) -> None:
    ours, theirs = model(TRUTH, 0.1, 0), model(TRUTH, 0.15, 1)
    found = compare(BETTER, MCC, ours, theirs, level)
    assert found.passes is passes
    # The verdict is that of the bound.
    assert found.lower_bound is not None
    assert (found.lower_bound > 0) is passes


def test_a_refresh_passes_where_it_is_shown_not_to_be_worse() -> None:
    same = model(TRUTH, 0.1, 0)
    # A twin that differs on two of 600 images.
    margin = np.where(np.isin(np.arange(600), (3, 8)), -same.log_odds, same.log_odds)
    twin = predictions(TRUTH, margin)
    assert not compare(BETTER, MCC, twin, same, 0.01).passes
    assert compare(REFRESH, MCC, twin, same, 0.01).passes
    assert compare(REFRESH, MCC, same, same, 0.01).passes
    assert not compare(REFRESH, MCC, model(TRUTH, 0.2, 1), same, 0.01).passes
    assert (margin_of(BETTER), margin_of(REFRESH)) == (0.0, -0.05)


def test_an_area_that_should_be_small_gains_by_falling() -> None:
    ours, theirs = model(TRUTH, 0.05, 0), model(TRUTH, 0.2, 1)
    found = compare(BETTER, objective_of("augrc", SOFTMAX), ours, theirs, 0.01)
    assert found.challenger < found.champion
    assert found.gain > 0
    assert found.passes


def test_the_document_has_no_number_that_json_has_not() -> None:
    few = model(TRUTH[:16], 0.3, 0), model(TRUTH[:16], 0.3, 1)
    found = compare(BETTER, MCC, *few, 1e-9)
    assert not found.passes
    assert found.lower_bound is None
    assert "no lower bound" in found.sentence
    one_class = np.ones(40, dtype=bool)
    reward = objective_of("expected_reward", SOFTMAX)
    undefined = compare(BETTER, reward, model(one_class, 0.1, 0), model(one_class, 0.2, 1), 0.01)
    assert undefined.p_value is None
    assert not undefined.passes
    for comparison in (found, undefined):
        json.dumps(comparison.to_json(), allow_nan=False)


def test_sixteen_groups_are_enough() -> None:
    assert too_few_groups(16) == ""
    assert "15 groups of VAL_TEST can be compared, a test needs 16" in too_few_groups(15)

"""Student's intervals over groups: closed forms, scales, blocks, and when there is none."""

import functools

import numpy as np
import pytest
from scipy import stats

from components.shared.stats import jackknife, metrics
from components.shared.stats.jackknife import Scale
from components.shared.stats.metrics import Bools, Floats, Integers


def _interval(values: Floats, block: Integers, scale: Scale) -> tuple[float, float] | None:
    function = functools.partial(metrics.weighted_mean, values)
    left_out = np.concatenate([function(w) for w in jackknife.weights_without(block)])
    return jackknife.student_interval(float(function(None)), left_out, block, scale)


def test_of_single_samples_it_is_the_interval_of_a_mean() -> None:
    values = np.random.default_rng(0).normal(size=50)
    expected = stats.t.interval(0.95, 49, values.mean(), stats.sem(values))
    assert _interval(values, np.arange(50), Scale.REAL) == pytest.approx(expected)


def test_scales_keep_their_range() -> None:
    values = np.r_[np.zeros(38), np.ones(2)]
    low, high = _interval(values, np.arange(40), Scale.PROPORTION) or (0, 0)
    assert 0 < low < 0.05 < high < 0.2
    low, high = _interval(values, np.arange(40), Scale.UNIT) or (0, 0)
    assert 0 < low < 0.05 < high < 0.4
    low, high = _interval(1 - values, np.arange(40), Scale.CORRELATION) or (0, 0)
    assert 0.5 < low < 0.95 < high < 1
    low, high = _interval(values, np.arange(40), Scale.POSITIVE) or (0, 0)
    assert 0 < low < 0.05 < high


def test_a_fraction_that_few_groups_decide_has_no_interval() -> None:
    """The recall of a class that 12 or 20 of 40 groups show: the others do not count."""
    rng, block = np.random.default_rng(1), np.repeat(np.arange(40), 3)
    found = rng.random(120) < 0.6
    for n_groups, exists in ((12, False), (20, True)):
        shown = (block < n_groups) & (rng.random(120) < 0.8)
        function = functools.partial(_recall, found & shown, shown)
        left_out = np.concatenate([function(w) for w in jackknife.weights_without(block)])
        value = float(function(None))
        interval = jackknife.student_interval(value, left_out, block, Scale.PROPORTION)
        assert (interval is not None) is exists


def _recall(hits: Bools, of_class: Bools, weights: Floats | None) -> Floats:
    return metrics.ratio(
        metrics.weighted_mean(hits, weights), metrics.weighted_mean(of_class, weights), np.nan
    )


def test_at_the_end_of_its_range_or_outside_a_value_has_no_interval() -> None:
    assert _interval(np.linspace(1, 2, 40), np.arange(40), Scale.UNIT) is None
    assert _interval(np.ones(40), np.arange(40), Scale.UNIT) is None


def test_large_groups_cost_degrees_of_freedom() -> None:
    even, uneven = np.repeat(np.arange(20), 10), np.r_[np.arange(20), np.repeat(np.arange(5), 36)]
    assert jackknife.effective_groups(even) == pytest.approx(20)
    assert jackknife.effective_groups(uneven) == pytest.approx(200**2 / (5 * 37**2 + 15))
    values = np.random.default_rng(0).normal(size=200)
    assert _interval(values, even, Scale.REAL) is not None
    # One group of 181 samples and 19 of one sample are little more than one group.
    assert _interval(values, np.r_[np.zeros(180, np.int64), np.arange(20)], Scale.REAL) is None


def test_a_value_that_few_groups_decide_has_no_interval() -> None:
    values = np.random.default_rng(0).normal(size=60)
    block = np.repeat(np.arange(30), 2)

    def among_first(weights: Floats | None) -> Floats:
        w = np.ones(60) if weights is None else weights
        return np.asarray((w[..., :20] @ values[:20]) / w[..., :20].sum(axis=-1))

    left_out = np.concatenate([among_first(w) for w in jackknife.weights_without(block)])
    found = jackknife.student_interval(float(among_first(None)), left_out, block, Scale.REAL)
    assert found is None


def test_many_groups_are_left_out_in_blocks_of_whole_groups() -> None:
    member = np.repeat(np.arange(1000), 2)
    block = jackknife.blocks(member, 0)
    assert set(block.tolist()) == set(range(400))
    assert (block[::2] == block[1::2]).all()
    assert np.ptp(np.bincount(block)) == 2  # two groups or three
    np.testing.assert_array_equal(block, jackknife.blocks(member, 0))

    values = np.random.default_rng(0).normal(size=1000)
    low, high = _interval(np.repeat(values, 2), block, Scale.REAL) or (0, 0)
    expected = 2 * 1.96 * values.std() / np.sqrt(1000)
    assert high - low == pytest.approx(expected, rel=0.1)


def test_an_expanded_percentile_has_the_width_of_students_interval() -> None:
    tail = jackknife.expanded_tail(16)
    assert -stats.norm.ppf(tail) * np.sqrt(15 / 16) == pytest.approx(stats.t.ppf(0.975, 15))
    assert jackknife.expanded_tail(1e6) == pytest.approx(0.025, abs=1e-5)


def test_clopper_pearson_of_groups() -> None:
    assert jackknife.clopper_pearson(0.0, 40) == pytest.approx((0, 1 - 0.91190), abs=5e-6)
    assert jackknife.clopper_pearson(1.0, 40) == pytest.approx((0.91190, 1), abs=5e-6)
    exact = stats.binomtest(10, 20).proportion_ci(method="exact")
    assert jackknife.clopper_pearson(0.5, 20) == pytest.approx((exact.low, exact.high))

"""Bootstrap intervals against scipy's, group resampling, and the comparison of two models."""

import functools
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import matthews_corrcoef

from components.shared.stats import bootstrap, metrics
from components.shared.stats.metrics import Floats
from tests.components.shared.stats.cal40 import DECISION, MARGIN, PROBABILITY, TRUTH

ALONE = bootstrap.membership(None, 40)
ACCURACY = functools.partial(metrics.accuracy, TRUTH, DECISION)
MCC = functools.partial(metrics.mcc, TRUTH, DECISION)


def _values(function: bootstrap.Statistic, count: int) -> Floats:
    return bootstrap.replicates({"x": function}, ALONE, count, 0)["x"]


@pytest.mark.parametrize(
    ("function", "peer", "count", "interval"),
    [
        (ACCURACY, lambda truth, said: np.mean(truth == said), 9999, (0.775, 0.975)),
        (MCC, matthews_corrcoef, 1999, (0.5957, 0.9456)),
    ],
)
def test_intervals_are_those_of_scipy_bootstrap(
    function: bootstrap.Statistic,
    peer: Callable[..., float],
    count: int,
    interval: tuple[float, float],
) -> None:
    values = _values(function, count)
    expected = scipy.stats.bootstrap(
        (TRUTH, DECISION),
        peer,
        paired=True,
        vectorized=False,
        n_resamples=count,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    found = bootstrap.percentile_interval(values)
    assert found == pytest.approx(tuple(expected.confidence_interval), abs=1e-12)
    assert found == pytest.approx(interval, abs=5e-5)
    assert values.std(ddof=1) == pytest.approx(expected.standard_error, abs=1e-12)


def test_paired_difference_as_scipy_bootstrap() -> None:
    shifted = functools.partial(metrics.mcc, TRUTH, MARGIN + 1.5 > 0)
    found = bootstrap.paired_difference(shifted, MCC, ALONE, 1999, 0)
    assert found.interval == pytest.approx((0, 0.2097), abs=5e-5)
    paired = (_values(shifted, 1999) - _values(MCC, 1999)).std(ddof=1)
    assert paired == pytest.approx(0.0565, abs=5e-5)
    unpaired = np.hypot(_values(MCC, 1999).std(ddof=1), _values(shifted, 1999).std(ddof=1))
    assert paired < 0.6 * unpaired


def test_a_metric_without_variation_has_an_interval_without_width() -> None:
    right = functools.partial(metrics.accuracy, TRUTH, TRUTH)
    assert bootstrap.percentile_interval(_values(right, 200)) == (1, 1)


def test_random_stream_does_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _values(ACCURACY, 500)
    monkeypatch.setattr(bootstrap, "_BATCH_ELEMENTS", 40 * 7)
    np.testing.assert_array_equal(_values(ACCURACY, 500), whole)


def test_groups_are_drawn_whole() -> None:
    member = bootstrap.membership(["b", "a", "b", "c", "a"], 5)
    assert member.tolist() == [1, 0, 1, 2, 0]
    (weights,) = bootstrap.group_weights(member, 50, 1)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 1] == weights[:, 4]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()


def test_copies_of_a_sample_add_no_certainty_when_grouped() -> None:
    truth, decision = np.repeat(TRUTH, 25), np.repeat(DECISION, 25)
    function = functools.partial(metrics.accuracy, truth, decision)
    groups = [str(i) for i in np.repeat(np.arange(40), 25)]
    grouped = bootstrap.intervals({"x": function}, groups, 2000, 0)["x"]
    alone = bootstrap.intervals({"x": function}, [str(i) for i in range(1000)], 2000, 0)["x"]
    assert grouped is not None
    assert alone is not None
    assert grouped[1] - grouped[0] == pytest.approx(0.2, abs=0.03)
    assert alone[1] - alone[0] < 0.05


def test_an_interval_exists_only_where_most_replicates_have_a_value() -> None:
    assert bootstrap.percentile_interval(np.array([1.0, np.nan, np.nan])) is None
    assert bootstrap.percentile_interval(np.array([1.0, 1.0, np.nan])) == (1, 1)


def test_coverage_of_the_interval_is_near_its_level() -> None:
    rng = np.random.default_rng(0)
    member, hits = bootstrap.membership(None, 200), 0
    for seed in range(150):
        correct = rng.random(200) < 0.8
        function = functools.partial(metrics.accuracy, correct, np.ones(200, bool))
        values = bootstrap.replicates({"x": function}, member, 400, seed)["x"]
        low, high = bootstrap.percentile_interval(values) or (1, 0)
        hits += low <= 0.8 <= high
    assert 0.89 <= hits / 150 <= 0.99


def test_probability_metrics_resample_too() -> None:
    found = bootstrap.intervals(
        {"brier": functools.partial(metrics.brier, TRUTH, PROBABILITY)},
        [str(i) for i in range(40)],
        500,
        0,
    )["brier"]
    assert found is not None
    assert found[0] < metrics.brier(TRUTH, PROBABILITY) < found[1]

"""Bootstrap intervals against scipy's, group resampling, and the comparison of two models."""

import functools
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import matthews_corrcoef

from components.shared.stats import bootstrap, bounds, jackknife, metrics
from components.shared.stats.jackknife import Scale
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
    found = tuple(np.quantile(values, [0.025, 0.975]))
    assert found == pytest.approx(tuple(expected.confidence_interval), abs=1e-12)
    assert found == pytest.approx(interval, abs=5e-5)
    assert values.std(ddof=1) == pytest.approx(expected.standard_error, abs=1e-12)


def test_a_paired_difference_is_of_the_same_samples() -> None:
    shifted = functools.partial(metrics.mcc, TRUTH, MARGIN + 1.5 > 0)
    found = bootstrap.paired_difference(shifted, MCC, ALONE, 1999, 0)
    paired = (_values(shifted, 1999) - _values(MCC, 1999)).std(ddof=1)
    assert paired == pytest.approx(0.0565, abs=5e-5)
    unpaired = np.hypot(_values(MCC, 1999).std(ddof=1), _values(shifted, 1999).std(ddof=1))
    assert paired < 0.6 * unpaired
    assert found.interval is not None
    low, high = found.interval
    assert (low + high) / 2 == pytest.approx(found.value)
    assert 0.8 < (high - low) / (2 * 1.96 * paired) < 1.5


def test_equal_models_have_no_interval_of_their_difference() -> None:
    found = bootstrap.paired_difference(ACCURACY, ACCURACY, ALONE, 200, 0)
    assert found == bootstrap.Difference(0.0, None)


def test_few_groups_have_no_interval() -> None:
    groups = [str(i % 15) for i in range(40)]
    member = bootstrap.membership(groups, 40)
    scales = {"x": Scale.PROPORTION, "y": Scale.QUANTILE}
    found = bootstrap.intervals({"x": ACCURACY, "y": MCC}, groups, 100, 0, scales)
    assert found == {"x": None, "y": None}
    assert bootstrap.paired_difference(ACCURACY, MCC, member, 100, 0).interval is None
    assert bootstrap.percentile_interval(_values(ACCURACY, 100), member) is None
    assert jackknife.no_interval_reason(15) == "too few groups for an interval"
    assert jackknife.no_interval_reason(16) != jackknife.no_interval_reason(15)


def test_a_perfect_model_has_an_interval_with_width() -> None:
    """60 images in 20 groups of 3, without an error: Clopper and Pearson on the groups."""
    right = np.ones(60, bool)
    groups = [str(i // 3) for i in range(60)]
    wrong = functools.partial(metrics.weighted_mean, ~right)
    correct = functools.partial(metrics.weighted_mean, right)
    scales = dict.fromkeys(("error", "accuracy"), Scale.PROPORTION)
    functions = {"error": wrong, "accuracy": correct}
    found = bootstrap.intervals(functions, groups, 100, 0, scales)
    upper = float(bounds.clopper_pearson_upper(0, 20, 0.025))
    assert found["error"] == pytest.approx((0, upper))
    assert found["accuracy"] == pytest.approx((1 - upper, 1))


def test_groups_without_an_answer_do_not_count_for_the_error_among_answered() -> None:
    groups = [str(i // 3) for i in range(60)]
    answered = np.arange(60) < 54

    def error(weights: Floats | None) -> Floats:
        none = np.zeros(60, bool)
        asked = metrics.weighted_mean(answered, weights)
        return metrics.ratio(metrics.weighted_mean(none, weights), asked, np.nan)

    found = bootstrap.intervals({"x": error}, groups, 100, 0, {"x": Scale.PROPORTION})["x"]
    assert found == pytest.approx((0, float(bounds.clopper_pearson_upper(0, 18, 0.025))))


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
    scales = {"x": Scale.PROPORTION}
    grouped = bootstrap.intervals({"x": function}, groups, 2000, 0, scales)["x"]
    alone = bootstrap.intervals({"x": function}, [str(i) for i in range(1000)], 2000, 0, scales)[
        "x"
    ]
    assert grouped is not None
    assert alone is not None
    assert grouped[1] - grouped[0] == pytest.approx(0.2, abs=0.03)
    assert alone[1] - alone[0] < 0.05


def test_an_interval_of_replicates_exists_only_where_most_have_different_values() -> None:
    values = np.linspace(0, 1, 101)
    assert bootstrap.percentile_interval(values, ALONE) is not None
    assert bootstrap.percentile_interval(np.r_[values, np.full(102, np.nan)], ALONE) is None
    assert bootstrap.percentile_interval(np.ones(100), ALONE) is None
    # Hold-out: coverage at an error rate of 0.05 was "1.000 to 1.000" for one error in 60 images.
    assert bootstrap.percentile_interval(np.r_[0.5, np.ones(999)], ALONE) is None


def test_probability_metrics_resample_too() -> None:
    found = bootstrap.intervals(
        {"brier": functools.partial(metrics.brier, TRUTH, PROBABILITY)},
        [str(i) for i in range(40)],
        500,
        0,
        {"brier": Scale.UNIT},
    )["brier"]
    assert found is not None
    assert found[0] < metrics.brier(TRUTH, PROBABILITY) < found[1]

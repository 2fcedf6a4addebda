"""Slices of samples: what is one, whose intervals are corrected, and what has too few groups."""

import functools

import numpy as np
import pytest
from sklearn.metrics import matthews_corrcoef

from components.shared.contracts.errors import ConfigError
from components.shared.stats import bootstrap, metrics, slices
from components.shared.stats.bootstrap import Statistic
from components.shared.stats.jackknife import Scale
from components.shared.stats.metrics import Integers

N = 240
RNG = np.random.default_rng(0)
GROUPS = tuple(f"g{i // 3}" for i in range(N))  # 80 groups of 3
TRUTH = RNG.random(N) < 0.4
DECISION = np.where(RNG.random(N) < 0.15, ~TRUTH, TRUTH)
# By group: 40, 30 and 10 groups, so that the last has too few.
WEATHER = tuple(np.array(["dry", "rain", "snow"])[np.digitize(np.arange(N) // 3, [40, 70])])
MEASURE = {"n_replicates": 200, "seed": 0}


def _accuracy(rows: Integers, decision: np.ndarray = DECISION) -> Statistic:
    return functools.partial(metrics.accuracy, TRUTH[rows], decision[rows])


def _mcc(rows: Integers) -> Statistic:
    return functools.partial(metrics.mcc, TRUTH[rows], DECISION[rows])


def _weather() -> tuple[slices.Slice, ...]:
    return slices.find_slices({"weather": WEATHER}, GROUPS)


def test_columns_of_2_to_20_values_are_sliced() -> None:
    found = slices.find_slices(
        {
            "source": ["one"] * N,
            "weather": WEATHER,
            "frame": [str(i) for i in range(N)],
            "camera": ["", *["a"] * (N - 1)],
        },
        GROUPS,
    )
    names = [item.name for item in found]
    assert names == ["weather=dry", "weather=rain", "weather=snow", "camera=(none)", "camera=a"]
    assert [item.n_groups for item in found[:3]] == [40, 30, 10]
    assert sum(len(item.rows) for item in found[:3]) == N


def test_numbers_are_cut_at_the_quartiles_of_the_given_samples() -> None:
    values = np.arange(8.0)
    assert slices.quartiles(values) == [
        *["Q1: 0 to 1"] * 2,
        *["Q2: 2 to 3"] * 2,
        *["Q3: 4 to 5"] * 2,
        *["Q4: 6 to 7"] * 2,
    ]
    assert slices.quartiles(np.array([np.nan, 1.0]))[0] == slices.NO_VALUE
    assert slices.quartiles(np.full(3, np.nan)) == [slices.NO_VALUE] * 3
    # Equal numbers stay together.
    assert set(slices.quartiles(np.array([0.0] * 9 + [5.0]))) == {"Q1: 0 to 0", "Q4: 5 to 5"}


def test_a_named_column_of_many_numbers_is_cut_at_its_quartiles() -> None:
    speeds = {"speed": [str(i % 100) for i in range(N)]}
    assert slices.find_slices(speeds, GROUPS) == ()
    found = slices.find_slices(speeds, GROUPS, ["speed"])
    assert [item.value for item in found] == [
        "Q1: 0 to 19",
        "Q2: 20 to 39",
        "Q3: 40 to 69",
        "Q4: 70 to 99",
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wether", "slices names 'wether', which is no column of the samples; there are 'weather'"),
        ("frame", "slices names 'frame', which has 240 values that are not all numbers"),
    ],
)
def test_a_column_that_cannot_be_sliced_is_refused(name: str, message: str) -> None:
    columns = {"weather": WEATHER, "frame": [f"f{i}" for i in range(N)]}
    with pytest.raises(ConfigError, match=message):
        slices.find_slices(columns, GROUPS, [name])


def test_intervals_of_slices_are_corrected_for_those_with_enough_groups() -> None:
    dry, rain, snow = _weather()
    found = slices.measure_slices(
        (dry, rain, snow), _accuracy, GROUPS, scale=Scale.PROPORTION, **MEASURE
    )

    for item, estimate in zip((dry, rain), found[:2], strict=True):
        groups = [GROUPS[row] for row in item.rows]
        scales = {"": Scale.PROPORTION}
        statistics = {"": _accuracy(item.rows)}
        # Two of the three have an interval: each at 1 - 0.05 / 2.
        expected = bootstrap.intervals(statistics, groups, 200, 0, scales, level=0.975)[""]
        assert estimate.interval == pytest.approx(expected)
        plain = bootstrap.intervals(statistics, groups, 200, 0, scales)[""]
        assert estimate.interval is not None
        assert plain is not None
        assert estimate.interval[0] < plain[0] < plain[1] < estimate.interval[1]

    assert found[2].interval is None
    assert found[2].reason == "too few groups: 10, an interval needs 16"
    assert found[2].value == pytest.approx((TRUTH == DECISION)[snow.rows].mean())


def test_a_slice_is_compared_with_all_other_samples() -> None:
    dry, rain, snow = _weather()
    found = slices.compare_to_rest((dry, rain, snow), _mcc, GROUPS, **MEASURE)
    inside = np.isin(np.arange(N), dry.rows)
    expected = matthews_corrcoef(TRUTH[inside], DECISION[inside]) - matthews_corrcoef(
        TRUTH[~inside], DECISION[~inside]
    )
    assert found[0].value == pytest.approx(expected)
    assert found[0].interval is not None
    assert found[2].reason == snow.too_small

    (everything,) = slices.compare_to_rest(
        slices.find_slices({"x": ["a"] * N}, GROUPS, ["x"]), _mcc, GROUPS, **MEASURE
    )
    assert everything == slices.SliceEstimate(None, None, "all samples have this value")


def test_a_rest_of_too_few_groups_is_said() -> None:
    column = ["most"] * (N - 30) + ["few"] * 30
    few, most = slices.find_slices({"x": column}, GROUPS)
    found = slices.compare_to_rest((few, most), _accuracy, GROUPS, **MEASURE)
    assert found[0].reason == "too few groups: 10, an interval needs 16"
    assert found[1].reason == "too few groups in the rest: 10, an interval needs 16"
    assert found[0].value == pytest.approx(-(found[1].value or 0))


def test_a_model_that_is_worse_on_one_slice_is_worse_on_that_slice() -> None:
    dry, rain, snow = _weather()
    worse = DECISION.copy()
    worse[rain.rows[::2]] = ~TRUTH[rain.rows[::2]]
    found = slices.compare_models(
        (dry, rain, snow), lambda rows: _accuracy(rows, worse), _accuracy, GROUPS, **MEASURE
    )
    assert found[0] == slices.SliceEstimate(0.0, None, slices.NO_DIFFERENCE)
    assert found[1].interval is not None
    assert found[1].interval[1] < 0
    assert found[2] == slices.SliceEstimate(0.0, None, snow.too_small)


def test_differences_of_several_pairs_are_those_of_each() -> None:
    dry, rain, _ = _weather()
    member = bootstrap.membership(GROUPS, N)
    pairs = {
        item.value: (
            lambda w, rows=item.rows: metrics.accuracy(
                TRUTH[rows], DECISION[rows], None if w is None else w[:, rows]
            ),
            functools.partial(metrics.accuracy, TRUTH, DECISION),
        )
        for item in (dry, rain)
    }
    found = bootstrap.paired_differences(pairs, member, 500, 1)
    for name, pair in pairs.items():
        alone = bootstrap.paired_difference(*pair, member, 500, 1)
        assert found[name].value == alone.value
        assert found[name].interval == pytest.approx(alone.interval, abs=1e-12)

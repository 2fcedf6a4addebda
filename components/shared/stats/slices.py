"""Slices: samples that share a value of a recorded attribute, and what a metric is on each of them.

A model that is good on average can be bad at night, or on one camera. A slice has its own metric,
with an interval over its groups; what it is compared with is the rest of the samples, or another
model on the same slice. Many slices are looked at, so that some look bad by chance: all intervals
of a call hold together with probability 95 %, by Bonferroni's correction (each of m intervals at
the level 1 - 0.05 / m). Holm's is a little more powerful, but corrects tests and gives no
intervals.

A slice of fewer than `MIN_GROUPS` groups has no interval and no part in the correction: no method
that was tried covers its nominal level there (`docs/results/intervals.md`). The number of groups
does not depend on what the model predicts, so leaving such slices out is no selection.

Own code, because fairlearn's MetricFrame, the library for metrics of subsets, resamples rows, not
groups, and corrects for nothing.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from components.shared.contracts.errors import ConfigError
from components.shared.contracts.listing import first_of, shown
from components.shared.stats import jackknife
from components.shared.stats.bootstrap import (
    Difference,
    Interval,
    Statistic,
    intervals,
    membership,
    paired_difference,
    paired_differences,
)
from components.shared.stats.jackknife import Scale
from components.shared.stats.metrics import Floats, Integers

MIN_GROUPS = jackknife.MIN_GROUPS
# Column in a table and a page; a value of a column of more would have few groups anyway.
FEWEST_VALUES, MOST_VALUES = 2, 20
NO_VALUE = "(none)"
NO_DIFFERENCE = "no interval: no group differs, or too few groups decide the difference"

# Draws beyond the quantile that ends an interval: with 20 its level is known to about a fifth.
_TAIL_DRAWS = 20

# A column as recorded: texts, or (N,) float64 numbers, nan where there is none.
Column = Sequence[str] | Floats
# A metric of some samples (n,) int64 as a function of their weights.
StatisticOf = Callable[[Integers], Statistic]


@dataclass(frozen=True, eq=False)
class Slice:
    """Samples with one value of one column.

    Attributes:
        column: name of the column.
        value: as recorded, or the quartile of a column of numbers.
        rows: (n,) int64, ascending.
        n_groups: number of distinct groups.
    """

    column: str
    value: str
    rows: Integers
    n_groups: int

    @property
    def name(self) -> str:
        """Column and value."""
        return f"{self.column}={self.value}"

    @property
    def too_small(self) -> str:
        """Why the slice has no interval for lack of groups; empty where it has enough."""
        if self.n_groups >= MIN_GROUPS:
            return ""
        return f"too few groups: {self.n_groups}, an interval needs {MIN_GROUPS}"


@dataclass(frozen=True)
class SliceEstimate:
    """A metric of a slice, or a difference of two.

    Attributes:
        value: None where it is not defined.
        interval: corrected for the number of slices; None where there is none.
        reason: why there is no interval; empty where there is one.
    """

    value: float | None
    interval: Interval
    reason: str = ""


def find_slices(
    columns: Mapping[str, Column], groups: Sequence[str], names: Sequence[str] | None = None
) -> tuple[Slice, ...]:
    """Return the slices of all columns, in the order of the columns and of their values.

    Numbers are cut at their own quartiles: the reference is the samples that are given here. So is
    a column of texts that is named, has more than 20 values, and has nothing but numbers.

    Args:
        columns: name -> N values.
        groups: (N,) group of each sample.
        names: the columns to slice by; None: all with 2 to 20 values, after numbers are cut.

    Raises:
        ConfigError: a name is no column, or has more than 20 values that are not numbers.
    """
    if names is not None:
        columns = _named(columns, names)

    found: list[Slice] = []
    for name, column in columns.items():
        values = quartiles(column) if isinstance(column, np.ndarray) else _texts(column)
        n_values = len(set(values))
        if names is not None or FEWEST_VALUES <= n_values <= MOST_VALUES:
            found += _slices(name, values, groups)

    return tuple(found)


def quartiles(values: Floats) -> list[str]:
    """Return the quartile of each of (N,) numbers in words, with its range; nan is `NO_VALUE`.

    Equal numbers are in one quartile, so that there may be fewer than four.
    """
    known = np.isfinite(values)
    if not known.any():
        return [NO_VALUE] * len(values)

    cuts = np.quantile(values[known], [0.25, 0.5, 0.75])
    quarter = np.searchsorted(cuts, values, side="left")
    words = {}
    for number in np.unique(quarter[known]).tolist():
        inside = values[known & (quarter == number)]
        words[number] = f"Q{number + 1}: {inside.min():.4g} to {inside.max():.4g}"

    return [
        words[number] if is_known else NO_VALUE
        for number, is_known in zip(quarter.tolist(), known.tolist(), strict=True)
    ]


def measure_slices(
    slices: Sequence[Slice],
    statistic_of: StatisticOf,
    groups: Sequence[str],
    *,
    scale: Scale,
    n_replicates: int,
    seed: int,
) -> tuple[SliceEstimate, ...]:
    """Return the metric on each slice, with intervals over its groups that hold together.

    Args:
        slices: of the N samples.
        statistic_of: the metric of the samples at some rows.
        groups: (N,) group of each sample.
        scale: of the metric.
        n_replicates: fewest draws of the bootstrap, where the scale needs one.
        seed: of the draws.
    """
    level, n_draws = _corrected(sum(not item.too_small for item in slices), n_replicates)
    found = []

    for item in slices:
        statistic = statistic_of(item.rows)
        value, interval = _number(statistic(None)), None
        if not item.too_small:
            own = [groups[row] for row in item.rows.tolist()]
            interval = intervals({"": statistic}, own, n_draws, seed, {"": scale}, level)[""]
        found.append(_estimate(value, interval, item.too_small, jackknife.NOT_DEFINED))

    return tuple(found)


def compare_to_rest(
    slices: Sequence[Slice],
    statistic_of: StatisticOf,
    groups: Sequence[str],
    *,
    n_replicates: int,
    seed: int,
) -> tuple[SliceEstimate, ...]:
    """Return the metric on each slice minus the metric on all other samples.

    Arguments as in `measure_slices`. The rest needs as many groups as a slice.
    """
    everything = np.arange(len(groups))
    pairs: dict[str, tuple[Statistic, Statistic]] = {}
    reasons = []

    for number, item in enumerate(slices):
        rest = np.setdiff1d(everything, item.rows)
        n_rest = len({groups[row] for row in rest.tolist()})
        reason = item.too_small
        if not reason and n_rest < MIN_GROUPS:
            reason = f"too few groups in the rest: {n_rest}, an interval needs {MIN_GROUPS}"
        reasons.append(reason)
        if len(rest):
            own, other = statistic_of(item.rows), statistic_of(rest)
            pairs[str(number)] = (_on(own, item.rows), _on(other, rest))

    member = membership(groups, len(groups))
    level, n_draws = _corrected(reasons.count(""), n_replicates)
    tested = {key: pair for key, pair in pairs.items() if not reasons[int(key)]}
    differences = paired_differences(tested, member, n_draws, seed, level)

    found = []
    for number, reason in enumerate(reasons):
        key = str(number)
        if key in differences:
            found.append(_of_difference(differences[key], reason))
        elif key in pairs:
            first, second = (_number(statistic(None)) for statistic in pairs[key])
            value = None if first is None or second is None else first - second
            found.append(SliceEstimate(value, None, reason))
        else:
            found.append(SliceEstimate(None, None, "all samples have this value"))

    return tuple(found)


def compare_models(
    slices: Sequence[Slice],
    first_of: StatisticOf,
    second_of: StatisticOf,
    groups: Sequence[str],
    *,
    n_replicates: int,
    seed: int,
) -> tuple[SliceEstimate, ...]:
    """Return the metric of model A minus that of model B on each slice, paired by groups.

    Arguments as in `measure_slices`, with the metric of either model. Where no group differs, the
    value is 0 and there is no interval.
    """
    level, n_draws = _corrected(sum(not item.too_small for item in slices), n_replicates)
    found = []

    for item in slices:
        first, second = first_of(item.rows), second_of(item.rows)
        if item.too_small:
            ours, theirs = _number(first(None)), _number(second(None))
            value = None if ours is None or theirs is None else ours - theirs
            found.append(SliceEstimate(value, None, item.too_small))
            continue

        own = [groups[row] for row in item.rows.tolist()]
        member = membership(own, len(own))
        difference = paired_difference(first, second, member, n_draws, seed, level)
        found.append(_of_difference(difference, ""))

    return tuple(found)


def _named(columns: Mapping[str, Column], names: Sequence[str]) -> dict[str, Column]:
    """Return the named columns, those of many numbers as numbers; raises as `find_slices`."""
    unknown = [name for name in names if name not in columns]
    if unknown:
        known = first_of(map(shown, columns), most=MOST_VALUES)
        raise ConfigError(
            f"slices names {first_of(map(shown, unknown))}, which is no column of the samples;"
            f" there are {known}"
        )

    found: dict[str, Column] = {}
    for name in names:
        column = columns[name]
        if not isinstance(column, np.ndarray) and len(set(column)) > MOST_VALUES:
            column = _numbers(name, column)
        found[name] = column
    return found


def _numbers(name: str, column: Sequence[str]) -> Floats:
    """Return (N,) float64 of a column of many values, nan where a field is empty."""
    try:
        numbers = np.array([float(text) if text.strip() else math.nan for text in column])
    except ValueError:
        numbers = np.array([math.inf])
    if np.isinf(numbers).any():
        raise ConfigError(
            f"slices names {shown(name)}, which has {len(set(column))} values that are not all"
            f" numbers; a column of texts must have at most {MOST_VALUES}"
        ) from None
    return numbers


def _texts(column: Sequence[str]) -> list[str]:
    return [text or NO_VALUE for text in column]


def _slices(column: str, values: Sequence[str], groups: Sequence[str]) -> list[Slice]:
    """Return the slices of one column, by the order of their values."""
    rows: dict[str, list[int]] = {}
    for row, value in enumerate(values):
        rows.setdefault(value, []).append(row)
    return [
        Slice(column, value, np.array(found), len({groups[row] for row in found}))
        for value, found in sorted(rows.items())
    ]


def _corrected(n_intervals: int, n_replicates: int) -> tuple[float, int]:
    """Return the level of each of so many intervals, and the number of draws that it needs."""
    tail = (1 - jackknife.LEVEL) / max(n_intervals, 1)
    return 1 - tail, max(n_replicates, math.ceil(_TAIL_DRAWS / tail))


def _on(statistic: Statistic, rows: Integers) -> Statistic:
    """Return the statistic of some rows as a function of the weights of all samples."""
    return lambda weights: statistic(None if weights is None else weights[:, rows])


def _number(value: Floats | float | None) -> float | None:
    if value is None or not np.isfinite(value):
        return None
    return float(value)


def _estimate(
    value: float | None, interval: Interval, reason: str, otherwise: str
) -> SliceEstimate:
    if interval is not None:
        return SliceEstimate(value, interval)
    return SliceEstimate(value, None, reason or otherwise)


def _of_difference(difference: Difference, reason: str) -> SliceEstimate:
    value = difference.value if np.isfinite(difference.value) else None
    return _estimate(value, difference.interval, reason, NO_DIFFERENCE)

"""How sure is a metric, given that frames of one place are alike? Intervals by resampling groups.

A replicate is a vector of multiplicities: each group (a place, a drive; a sample alone where no
groups are given) is drawn with replacement, and metrics take the multiplicities as weights. So a
metric sorts once for all replicates, and two models are compared on the same replicates. The random
stream is that of `scipy.stats.bootstrap`: same seed, same numbers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from components.shared.stats.metrics import Floats, Integers

LEVEL = 0.95
# (R, N) float64 weights of one batch are 2 MB, which stay in a core's cache, but at least 16 rows:
# metrics prepare something for each batch that is as long as the samples.
_BATCH_ELEMENTS = 250_000
_MIN_BATCH = 16
# Counted in small blocks: a histogram that leaves the fast cache takes five times as long.
_COUNTED_ELEMENTS = 32_000
# Deleting blocks of groups estimates the same acceleration as deleting single groups, at bounded
# cost.
_MAX_JACKKNIFE_BLOCKS = 1000
_NORMAL = NormalDist()

Statistic = Callable[[Floats | None], Floats | float | None]
Interval = tuple[float, float] | None


@dataclass(frozen=True)
class Difference:
    """Metric of A minus metric of B on the same samples; intervals are None where they do not
    exist.
    """

    value: float
    standard_error: float
    percentile: Interval
    bca: Interval


def membership(groups: Sequence[str] | None, count: int) -> Integers:
    """(N,) index of the group of each sample; every sample is its own group where `groups` is
    None.
    """
    if groups is None:
        return np.arange(count)
    return np.unique(np.array(groups), return_inverse=True)[1].astype(np.int64)


def group_weights(member: Integers, n_replicates: int, seed: int) -> Iterator[Floats]:
    """Batches (r, N) of sample multiplicities; in each row whole groups are drawn with
    replacement.
    """
    n_groups = int(member.max()) + 1
    alone = n_groups == len(member) and bool((member == np.arange(n_groups)).all())
    rng = np.random.default_rng(seed)
    batch = max(_MIN_BATCH, _BATCH_ELEMENTS // max(n_groups, len(member)))
    for start in range(0, n_replicates, batch):
        rows = min(batch, n_replicates - start)
        counts = _counts(rng.integers(0, n_groups, (rows, n_groups)))
        yield counts if alone else counts[:, member]


def _counts(drawn: Integers) -> Floats:
    """(r, G) float64: how often each group was drawn in each row of `drawn` (r, G)."""
    rows, n_groups = drawn.shape
    counts = np.empty((rows, n_groups))
    step = max(1, _COUNTED_ELEMENTS // n_groups)
    for start in range(0, rows, step):
        part = drawn[start : start + step]
        offset = part + n_groups * np.arange(len(part))[:, None]
        counts[start : start + step] = np.bincount(offset.ravel(), minlength=part.size).reshape(
            part.shape
        )
    return counts


def replicates(
    functions: Mapping[str, Statistic], member: Integers, n_replicates: int, seed: int
) -> dict[str, Floats]:
    """(n_replicates,) values of each statistic on the same replicates; nan where a replicate has no
    value.
    """
    values: dict[str, list[Floats]] = {name: [] for name in functions}
    for weights in group_weights(member, n_replicates, seed):
        for name, function in functions.items():
            values[name].append(np.asarray(function(weights), dtype=np.float64))
    return {name: np.concatenate(parts) for name, parts in values.items()}


def intervals(
    functions: Mapping[str, Statistic], groups: Sequence[str], n_replicates: int, seed: int
) -> dict[str, Interval]:
    """95 % percentile intervals of several metrics on the same replicates.

    A function maps weights (R, N) to (R,) values and None to the metric itself.
    """
    found = replicates(functions, membership(groups, len(groups)), n_replicates, seed)
    return {name: percentile_interval(values) for name, values in found.items()}


def percentile_interval(values: Floats, level: float = LEVEL) -> Interval:
    """Central `level` of the replicates that have a value; None where fewer than half have one."""
    finite = values[np.isfinite(values)]
    if 2 * len(finite) < len(values) or not len(finite):
        return None
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bca_interval(
    values: Floats, function: Statistic, member: Integers, level: float = LEVEL
) -> Interval:
    """Bias-corrected and accelerated interval (Efron 1987) of a statistic with bootstrap `values`
    (R,).

    None where the metric is the same in all replicates or without any group: there the method has
    no answer (use an exact binomial interval for a proportion).
    """
    estimate = function(None)
    finite = values[np.isfinite(values)]
    deviations = _jackknife_deviations(function, member)
    if estimate is None or 2 * len(finite) < len(values) or not deviations.any():
        return None
    below = (np.count_nonzero(finite < estimate) + np.count_nonzero(finite <= estimate)) / (
        2 * len(finite)
    )
    if not 0 < below < 1:
        return None
    bias = _NORMAL.inv_cdf(below)
    acceleration = float((deviations**3).sum() / (6 * (deviations**2).sum() ** 1.5))
    low, high = (
        _bca_quantile(finite, bias, acceleration, q) for q in ((1 - level) / 2, (1 + level) / 2)
    )
    return low, high


def paired_difference(
    first: Statistic, second: Statistic, member: Integers, n_replicates: int, seed: int
) -> Difference:
    """Compare two models on the same samples and the same replicates."""

    def difference(weights: Floats | None) -> Floats:
        ours, theirs = (
            np.asarray(function(weights), dtype=np.float64) for function in (first, second)
        )
        return (ours - theirs)[()]

    values = replicates({"": difference}, member, n_replicates, seed)[""]
    return Difference(
        value=float(difference(None)),
        standard_error=float(np.nanstd(values, ddof=1)),
        percentile=percentile_interval(values),
        bca=bca_interval(values, difference, member),
    )


def _bca_quantile(values: Floats, bias: float, acceleration: float, level: float) -> float:
    shifted = bias + _NORMAL.inv_cdf(level)
    return float(np.quantile(values, _NORMAL.cdf(bias + shifted / (1 - acceleration * shifted))))


def _jackknife_deviations(function: Statistic, member: Integers) -> Floats:
    """Mean minus value of the statistic without each group (or block of neighbouring groups)."""
    n_groups = int(member.max()) + 1
    n_blocks = min(n_groups, _MAX_JACKKNIFE_BLOCKS)
    block = (member * n_blocks) // n_groups
    batch = max(1, _BATCH_ELEMENTS // len(member))
    values = [
        np.asarray(
            function(
                (block != np.arange(start, min(start + batch, n_blocks))[:, None]).astype(
                    np.float64
                )
            )
        )
        for start in range(0, n_blocks, batch)
    ]
    left_out = np.concatenate(values).astype(np.float64)
    left_out = left_out[np.isfinite(left_out)]
    deviations: Floats = left_out.mean() - left_out if len(left_out) else left_out
    return np.where(np.abs(deviations) > 1e-15, deviations, 0.0)

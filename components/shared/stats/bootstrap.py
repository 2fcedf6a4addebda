"""Bootstrap intervals of metrics, resampled over groups of samples.

Frames of one place are alike, so whole groups (a place, a drive; a sample alone where no groups are
given) are drawn with replacement. A replicate is a vector of multiplicities, which metrics take as
weights: a metric sorts once for all replicates, and two models are compared on the same replicates.

Own code, because `scipy.stats.bootstrap` resamples rows, not groups, and a metric would sort each
of its resamples anew. The random stream is scipy's: equal seeds give equal numbers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from components.shared.stats.metrics import Floats, Integers

LEVEL = 0.95
# (R, N) float64 weights of one batch are 2 MB, which stay in a core's cache, but at least 16 rows:
# metrics prepare something for each batch that is as long as the samples.
_BATCH_ELEMENTS = 250_000
_MIN_BATCH = 16
# Counted in small blocks: a histogram that leaves the fast cache takes five times as long.
_COUNTED_ELEMENTS = 32_000

# A metric as a function of weights: (R, N) weights give (R,) values, None gives the metric itself.
Statistic = Callable[[Floats | None], Floats | float | None]
Interval = tuple[float, float] | None


@dataclass(frozen=True)
class Difference:
    """Metric of model A minus metric of model B on the same samples.

    interval: 95 % percentile interval over paired replicates; None where it does not exist.
    """

    value: float
    interval: Interval


def membership(groups: Sequence[str] | None, count: int) -> Integers:
    """Return (N,) int64, the index of each sample's group.

    Every sample is its own group where `groups` is None.
    """
    if groups is None:
        return np.arange(count)
    return np.unique(np.array(groups), return_inverse=True)[1].astype(np.int64)


def group_weights(member: Integers, n_replicates: int, seed: int) -> Iterator[Floats]:
    """Yield batches (r, N) float64 of sample multiplicities, whole groups drawn with replacement.

    Args:
        member: (N,) int64, group index of each sample, as `membership` returns it.
        n_replicates: rows of all batches together.
        seed: seed of the draws; the batch size does not change them.
    """
    n_groups = int(member.max()) + 1
    each_alone = n_groups == len(member) and bool((member == np.arange(n_groups)).all())
    rng = np.random.default_rng(seed)
    batch = max(_MIN_BATCH, _BATCH_ELEMENTS // max(n_groups, len(member)))

    for start in range(0, n_replicates, batch):
        n_rows = min(batch, n_replicates - start)
        counts = _counts(rng.integers(0, n_groups, (n_rows, n_groups)))
        yield counts if each_alone else counts[:, member]


def _counts(drawn: Integers) -> Floats:
    """Count how often each group was drawn in each row of `drawn` (r, G); (r, G) float64."""
    n_rows, n_groups = drawn.shape
    counts = np.empty((n_rows, n_groups))
    step = max(1, _COUNTED_ELEMENTS // n_groups)

    for start in range(0, n_rows, step):
        block = drawn[start : start + step]
        # Row k counts in the interval from k * n_groups on: one bincount for all rows of the block.
        shifted = block + n_groups * np.arange(len(block))[:, None]
        histogram = np.bincount(shifted.ravel(), minlength=block.size)
        counts[start : start + step] = histogram.reshape(block.shape)

    return counts


def replicates(
    functions: Mapping[str, Statistic], member: Integers, n_replicates: int, seed: int
) -> dict[str, Floats]:
    """Evaluate several statistics on the same replicates.

    Returns:
        Name -> (n_replicates,) float64; nan where a replicate has no value.
    """
    values: dict[str, list[Floats]] = {name: [] for name in functions}
    for weights in group_weights(member, n_replicates, seed):
        for name, function in functions.items():
            values[name].append(np.asarray(function(weights), dtype=np.float64))
    return {name: np.concatenate(batches) for name, batches in values.items()}


def intervals(
    functions: Mapping[str, Statistic], groups: Sequence[str], n_replicates: int, seed: int
) -> dict[str, Interval]:
    """Return 95 % percentile intervals of several metrics, from the same replicates.

    Args:
        functions: name -> metric as a function of weights.
        groups: (N,) group name of each sample.
        n_replicates: number of bootstrap replicates.
        seed: seed of the draws.
    """
    found = replicates(functions, membership(groups, len(groups)), n_replicates, seed)
    return {name: percentile_interval(values) for name, values in found.items()}


def percentile_interval(values: Floats, level: float = LEVEL) -> Interval:
    """Return the central `level` of the finite replicates; None where less than half are finite."""
    finite = values[np.isfinite(values)]
    if 2 * len(finite) < len(values) or not len(finite):
        return None
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_difference(
    first: Statistic, second: Statistic, member: Integers, n_replicates: int, seed: int
) -> Difference:
    """Compare two models on the same samples and the same replicates.

    Args:
        first: metric of model A as a function of weights.
        second: the same metric of model B on the same samples.
        member: (N,) int64, group index of each sample.
        n_replicates: number of bootstrap replicates.
        seed: seed of the draws.
    """

    def difference(weights: Floats | None) -> Floats:
        ours = np.asarray(first(weights), dtype=np.float64)
        theirs = np.asarray(second(weights), dtype=np.float64)
        return (ours - theirs)[()]

    values = replicates({"": difference}, member, n_replicates, seed)[""]
    return Difference(float(difference(None)), percentile_interval(values))

"""Intervals of metrics over groups of samples, and the weights of resampled groups.

Frames of one place are alike, so whole groups (a place, a drive; a sample alone where no groups are
given) are left out or drawn with replacement. Either is a vector of weights: a metric sorts once
for all of them, and two models are compared on the same ones.

Own code, because `scipy.stats.bootstrap` resamples rows, not groups, and a metric would sort each
of its resamples anew. The random stream is scipy's: equal seeds give equal numbers.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from components.shared.stats import jackknife
from components.shared.stats.jackknife import Scale
from components.shared.stats.metrics import Floats, Integers, sigmoid

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

    interval: 95 %, over paired groups; None with fewer than 16 groups, or where no group differs.
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
    """Evaluate several statistics on the same bootstrap replicates.

    Returns:
        Name -> (n_replicates,) float64; nan where a replicate has no value.
    """
    return evaluated(functions, group_weights(member, n_replicates, seed))


def evaluated(functions: Mapping[str, Statistic], batches: Iterable[Floats]) -> dict[str, Floats]:
    """Evaluate several statistics on the same batches (r, N) of weights; name -> (R,) float64."""
    values: dict[str, list[Floats]] = {name: [] for name in functions}
    for weights in batches:
        for name, function in functions.items():
            values[name].append(np.asarray(function(weights), dtype=np.float64))
    return {name: np.concatenate(found) for name, found in values.items()}


def intervals(
    functions: Mapping[str, Statistic],
    groups: Sequence[str],
    n_replicates: int,
    seed: int,
    scales: Mapping[str, Scale],
) -> dict[str, Interval]:
    """Return 95 % intervals of several metrics over groups.

    Args:
        functions: name -> metric as a function of weights.
        groups: (N,) group name of each sample.
        n_replicates: bootstrap replicates of the metrics whose scale is QUANTILE.
        seed: seed of the draws.
        scales: name -> scale of the metric, for every name of `functions`.

    Returns:
        None where groups are fewer than 16 or an interval does not exist; `no_interval_reason` of
        `jackknife` says which.
    """
    member = membership(groups, len(groups))
    if not jackknife.enough(member):
        return dict.fromkeys(functions)

    smooth = {name: f for name, f in functions.items() if scales[name] is not Scale.QUANTILE}
    crossings = {name: f for name, f in functions.items() if name not in smooth}
    block = jackknife.blocks(member, seed)
    left_out = evaluated(smooth, jackknife.weights_without(block))
    found = {
        name: _smooth_interval(function, left_out[name], block, scales[name])
        for name, function in smooth.items()
    }

    if crossings:
        drawn = replicates(crossings, member, n_replicates, seed)
        found |= {name: percentile_interval(values, member) for name, values in drawn.items()}

    return {name: found[name] for name in functions}


def _smooth_interval(
    function: Statistic, left_out: Floats, block: Integers, scale: Scale
) -> Interval:
    """Return Student's interval, or the exact one of a proportion that is equal in all groups."""
    found = function(None)
    value = float("nan") if found is None else float(found)
    varies = jackknife.n_influential(jackknife.centered(left_out)) > 0
    if varies or scale is not Scale.PROPORTION or not np.isfinite(value):
        return jackknife.student_interval(value, left_out, block, scale)

    # A group counts where the proportion is defined of it alone: it has a sample among which the
    # property is counted.
    alone = evaluated({"": function}, (1 - w for w in jackknife.weights_without(block)))[""]
    counted = np.isfinite(alone)
    if counted.sum() < jackknife.MIN_GROUPS:
        return None
    return jackknife.clopper_pearson(
        value, jackknife.effective_groups(np.unique(block[counted[block]], return_inverse=True)[1])
    )


def percentile_interval(values: Floats, member: Integers) -> Interval:
    """Return the 95 % interval of the finite replicates, expanded to the width of Student's.

    Args:
        values: (R,) float64, replicates of a metric over groups.
        member: (N,) int64, group index of each sample.

    Returns:
        None with too few groups, where less than half of the replicates are finite, or where so
        many are equal that both ends are.
    """
    finite = values[np.isfinite(values)]
    if not jackknife.enough(member) or 2 * len(finite) < len(values):
        return None
    tail = jackknife.expanded_tail(jackknife.effective_groups(member))
    low, high = np.quantile(finite, [tail, 1 - tail])
    return (float(low), float(high)) if low < high else None


def probability_interval(margins: Floats, member: Integers) -> Interval:
    """Return `percentile_interval` of log-odds (R,), as probabilities.

    A replicate without a value is nan, of which there is no probability.
    """
    found = percentile_interval(margins, member)
    if found is None:
        return None
    low, high = sigmoid(np.array(found))
    return float(low), float(high)


def paired_difference(
    first: Statistic, second: Statistic, member: Integers, n_replicates: int, seed: int
) -> Difference:
    """Compare two models on the same samples, by random signs of the groups' influences.

    If neither model is better, the influence of a group on the difference is as likely positive as
    negative. The interval is that of a wild cluster bootstrap with Rademacher weights, studentised
    and symmetric (Cameron, Gelbach, Miller, Review of Economics and Statistics 2008).

    Args:
        first: metric of model A as a function of weights.
        second: the same metric of model B on the same samples.
        member: (N,) int64, group index of each sample.
        n_replicates: number of draws of signs.
        seed: seed of the draws.
    """

    def difference(weights: Floats | None) -> Floats:
        ours = np.asarray(first(weights), dtype=np.float64)
        theirs = np.asarray(second(weights), dtype=np.float64)
        return (ours - theirs)[()]

    value = float(difference(None))
    if not jackknife.enough(member) or not np.isfinite(value):
        return Difference(value, None)

    block = jackknife.blocks(member, seed)
    left_out = evaluated({"": difference}, jackknife.weights_without(block))[""]
    return Difference(value, _wild_interval(value, left_out, n_replicates, seed))


def _wild_interval(value: float, left_out: Floats, n_replicates: int, seed: int) -> Interval:
    """Return the interval of a difference from its (B,) values without each block."""
    influence = jackknife.centered(left_out)
    error = jackknife.standard_error(value, left_out, Scale.REAL)
    if not np.isfinite(left_out).all() or error is None:
        return None
    if jackknife.n_influential(influence) == 0:
        return None

    signed = random_signs(n_replicates, len(influence), seed) * influence
    spread = np.sqrt(((signed - signed.mean(axis=1, keepdims=True)) ** 2).sum(axis=1))
    n_blocks = len(influence)
    ratios = np.abs(signed.sum(axis=1)) / np.maximum(spread, 1e-300)
    ratios *= np.sqrt((n_blocks - 1) / n_blocks)
    distance = float(np.quantile(ratios, jackknife.LEVEL, method="higher")) * error
    return value - distance, value + distance


def random_signs(n_rows: int, n_blocks: int, seed: int) -> Floats:
    """Return (n_rows, n_blocks) float64 of -1 and 1, each with probability 1/2."""
    return np.asarray(np.random.default_rng(seed).choice([-1.0, 1.0], (n_rows, n_blocks)))

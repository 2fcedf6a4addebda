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

    interval: over paired groups, 95 % unless another level was asked for; None with fewer than 16
    groups, or where no group differs.
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
    level: float = jackknife.LEVEL,
) -> dict[str, Interval]:
    """Return intervals of several metrics over groups.

    Args:
        functions: name -> metric as a function of weights.
        groups: (N,) group name of each sample.
        n_replicates: bootstrap replicates of the metrics whose scale is QUANTILE.
        seed: seed of the draws.
        scales: name -> scale of the metric, for every name of `functions`.
        level: nominal coverage of each.

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
        name: _smooth_interval(function, left_out[name], block, scales[name], level)
        for name, function in smooth.items()
    }

    if crossings:
        drawn = replicates(crossings, member, n_replicates, seed)
        found |= {
            name: percentile_interval(values, member, level) for name, values in drawn.items()
        }

    return {name: found[name] for name in functions}


def _smooth_interval(
    function: Statistic, left_out: Floats, block: Integers, scale: Scale, level: float
) -> Interval:
    """Return Student's interval, or the exact one of a proportion that is equal in all groups."""
    found = function(None)
    value = float("nan") if found is None else float(found)
    varies = jackknife.n_influential(jackknife.centered(left_out)) > 0
    if varies or scale is not Scale.PROPORTION or not np.isfinite(value):
        return jackknife.student_interval(value, left_out, block, scale, level)

    # A group counts where the proportion is defined of it alone: it has a sample among which the
    # property is counted.
    alone = evaluated({"": function}, (1 - w for w in jackknife.weights_without(block)))[""]
    counted = np.isfinite(alone)
    if counted.sum() < jackknife.MIN_GROUPS:
        return None
    effective = jackknife.effective_groups(np.unique(block[counted[block]], return_inverse=True)[1])
    return jackknife.clopper_pearson(value, effective, level)


def percentile_interval(
    values: Floats, member: Integers, level: float = jackknife.LEVEL
) -> Interval:
    """Return the interval of the finite replicates, expanded to the width of Student's.

    Args:
        values: (R,) float64, replicates of a metric over groups.
        member: (N,) int64, group index of each sample.
        level: nominal coverage.

    Returns:
        None with too few groups, where less than half of the replicates are finite, or where so
        many are equal that both ends are.
    """
    finite = values[np.isfinite(values)]
    if not jackknife.enough(member) or 2 * len(finite) < len(values):
        return None
    tail = jackknife.expanded_tail(jackknife.effective_groups(member), level)
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
    first: Statistic,
    second: Statistic,
    member: Integers,
    n_replicates: int,
    seed: int,
    level: float = jackknife.LEVEL,
) -> Difference:
    """Compare two models on the same samples; arguments as in `paired_differences`."""
    pairs = {"": (first, second)}
    return paired_differences(pairs, member, n_replicates, seed, level)[""]


def paired_differences(
    pairs: Mapping[str, tuple[Statistic, Statistic]],
    member: Integers,
    n_replicates: int,
    seed: int,
    level: float = jackknife.LEVEL,
) -> dict[str, Difference]:
    """Compare two statistics on the same samples, by random signs of the groups' influences.

    If neither is larger, the influence of a group on the difference is as likely positive as
    negative. The interval is that of a wild cluster bootstrap with Rademacher weights, studentised
    and symmetric (Cameron, Gelbach, Miller, Review of Economics and Statistics 2008).

    Args:
        pairs: name -> metric of model A and the same metric of model B, as functions of weights.
        member: (N,) int64, group index of each sample.
        n_replicates: number of draws of signs, the same for all pairs.
        seed: seed of the draws.
        level: nominal coverage of each interval; a quantile near 1 needs many draws.
    """
    functions = {name: _difference_of(*pair) for name, pair in pairs.items()}
    values = {name: float(np.asarray(function(None))) for name, function in functions.items()}
    finite = {name: functions[name] for name, value in values.items() if np.isfinite(value)}
    if not finite or not jackknife.enough(member):
        return {name: Difference(value, None) for name, value in values.items()}

    left_out = evaluated(finite, jackknife.weights_without(jackknife.blocks(member, seed)))
    found = _wild_intervals(values, left_out, n_replicates, seed, level)
    return {name: Difference(value, found.get(name)) for name, value in values.items()}


def _difference_of(first: Statistic, second: Statistic) -> Statistic:
    def difference(weights: Floats | None) -> Floats:
        ours = np.asarray(first(weights), dtype=np.float64)
        theirs = np.asarray(second(weights), dtype=np.float64)
        return (ours - theirs)[()]

    return difference


def _wild_intervals(
    values: Mapping[str, float],
    left_out: Mapping[str, Floats],
    n_replicates: int,
    seed: int,
    level: float,
) -> dict[str, tuple[float, float]]:
    """Return the intervals of differences from their (B,) values without each block, if any."""
    influences: dict[str, Floats] = {}
    errors: dict[str, float] = {}
    for name, without in left_out.items():
        influence = jackknife.centered(without)
        error = jackknife.standard_error(values[name], without, Scale.REAL)
        if not np.isfinite(without).all() or error is None:
            continue
        if jackknife.n_influential(influence) > 0:
            influences[name], errors[name] = influence, error

    if not influences:
        return {}

    quantiles = _wild_quantiles(np.stack(list(influences.values())), n_replicates, seed, level)
    found = {}
    for name, quantile in zip(influences, quantiles.tolist(), strict=True):
        distance = quantile * errors[name]
        found[name] = (values[name] - distance, values[name] + distance)
    return found


def _wild_quantiles(influences: Floats, n_replicates: int, seed: int, level: float) -> Floats:
    """Return (K,) the quantiles of the studentised sums of (K, B) influences with random signs."""
    n_blocks = influences.shape[1]
    rng = np.random.default_rng(seed)
    step = max(_MIN_BATCH, _BATCH_ELEMENTS // n_blocks)
    sums = np.concatenate(
        [
            _signs(rng, min(step, n_replicates - start), n_blocks) @ influences.T
            for start in range(0, n_replicates, step)
        ]
    )
    # Signs change no square: the sum of squares around the mean follows from the sum alone.
    squares = (influences**2).sum(axis=1) - sums**2 / n_blocks
    ratios = np.abs(sums) / np.sqrt(np.maximum(squares, 1e-300))
    ratios *= np.sqrt((n_blocks - 1) / n_blocks)
    return np.asarray(np.quantile(ratios, level, axis=0, method="higher"))


def random_signs(n_rows: int, n_blocks: int, seed: int) -> Floats:
    """Return (n_rows, n_blocks) float64 of -1 and 1, each with probability 1/2."""
    return _signs(np.random.default_rng(seed), n_rows, n_blocks)


def _signs(rng: np.random.Generator, n_rows: int, n_blocks: int) -> Floats:
    return np.asarray(rng.choice([-1.0, 1.0], (n_rows, n_blocks)))

"""Intervals from leaving out one group at a time, on a scale that suits the metric.

With 16 to some tens of groups a percentile bootstrap is too narrow: it ignores the few degrees of
freedom, and its skewness is that of the sample. The interval here is Student's, on the logit scale
for fractions, and its degrees of freedom count groups by their weight in the estimate: few groups
that decide it are worth less than many. `docs/results/intervals.md` has the coverage of both.

Own code, because `scipy.stats` has no jackknife, and astropy's leaves out rows, not groups.
"""

from collections.abc import Iterator
from enum import Enum

import numpy as np

from components.shared.stats.metrics import Floats, Integers, sigmoid

LEVEL = 0.95
MIN_GROUPS = 16  # with fewer, no interval that was tried covers its nominal level on skewed data
TOO_FEW_GROUPS = "too few groups for an interval"
NOT_DEFINED = (
    "no interval: nothing varies between groups, too few groups decide the value, or it is a mean"
    " loss and there is no error"
)

_MIN_EFFECTIVE = 4.0  # groups of equal size; with fewer, Student's quantile exceeds 3.2
# More groups are left out in blocks: 400 blocks estimate a standard error to 4 %.
_MAX_BLOCKS = 400
# As in `bootstrap`: batches stay in a core's cache, but are at least 16 rows.
_BATCH_ELEMENTS, _MIN_BATCH = 250_000, 16


class Scale(Enum):
    """Range of a metric, which decides how its interval is computed.

    PROPORTION: fraction of samples with a property; logit scale. Where it is the same in every
    group, the exact interval of Clopper and Pearson on the number of groups.
    UNIT: another value in [0, 1]; logit scale. CORRELATION: in [-1, 1]; Fisher's z.
    POSITIVE: in [0, inf); logarithm. REAL: a difference; as it is.
    QUANTILE: the place where a curve crosses a level. It is not smooth in the samples: percentile
    interval of a bootstrap over groups, expanded to the quantile of Student.
    """

    PROPORTION = "proportion"
    UNIT = "unit"
    CORRELATION = "correlation"
    POSITIVE = "positive"
    REAL = "real"
    QUANTILE = "quantile"


def no_interval_reason(n_groups: int) -> str:
    """Return why a metric on so many groups has no interval."""
    return TOO_FEW_GROUPS if n_groups < MIN_GROUPS else NOT_DEFINED


def blocks(member: Integers, seed: int) -> Integers:
    """Return (N,) int64, the block of each sample: its group, or one of 400 sets of whole groups.

    Args:
        member: (N,) int64, group index of each sample.
        seed: of the assignment of groups to blocks.
    """
    n_groups = int(member.max()) + 1
    if n_groups <= _MAX_BLOCKS:
        return member

    block_of_group = np.empty(n_groups, dtype=np.int64)
    block_of_group[np.random.default_rng(seed).permutation(n_groups)] = (
        np.arange(n_groups) % _MAX_BLOCKS
    )
    return np.asarray(block_of_group[member])


def weights_without(block: Integers) -> Iterator[Floats]:
    """Yield batches (r, N) float64 of weights: row b is 0 in block b and 1 elsewhere."""
    n_blocks = int(block.max()) + 1
    step = max(_MIN_BATCH, _BATCH_ELEMENTS // len(block))
    for start in range(0, n_blocks, step):
        left_out = np.arange(start, min(start + step, n_blocks))
        yield (block != left_out[:, None]).astype(np.float64)


def effective_groups(block: Integers) -> float:
    """Return how many groups of equal size have the information of these, (sum n)^2 / sum n^2.

    Kish, Survey Sampling, 1965, section 11.7.
    """
    sizes = np.bincount(block).astype(np.float64)
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def student_interval(
    value: float, left_out: Floats, block: Integers, scale: Scale, level: float = LEVEL
) -> tuple[float, float] | None:
    """Return the interval of a smooth metric.

    Args:
        value: the metric of all samples.
        left_out: (B,) float64, the metric without each block.
        block: (N,) int64, block of each sample.
        scale: of the metric, not QUANTILE.
        level: nominal coverage.

    Returns:
        None where it is not defined without one of the blocks, does not vary, or is decided by
        fewer than MIN_GROUPS of them.
    """
    from scipy.stats import t

    if not np.isfinite(value) or not np.isfinite(left_out).all():
        return None

    # A block without a sample of a fraction's denominator leaves the value as it is.
    if n_influential(value - left_out) < MIN_GROUPS:
        return None

    influence = centered(left_out)
    freedom = degrees_of_freedom(influence, block, scale)
    if freedom < _MIN_EFFECTIVE - 1:
        return None

    error = standard_error(value, left_out, scale)
    if error is None:
        return None

    center = float(_forward(np.asarray(value), scale))
    distance = float(t.ppf((1 + level) / 2, freedom)) * error
    low, high = _backward(np.array([center - distance, center + distance]), scale)
    return float(low), float(high)


def centered(left_out: Floats) -> Floats:
    """Return (B,) the influence of each block, up to a factor: their mean minus each value."""
    return np.asarray(left_out.mean() - left_out)


def n_influential(influence: Floats) -> int:
    """Return how many blocks change the value at all, beyond rounding."""
    size = np.abs(influence)
    return int((size > 1e-9 * size.max()).sum()) if size.max() > 1e-13 else 0


def degrees_of_freedom(influence: Floats, block: Integers, scale: Scale) -> float:
    """Return the degrees of freedom of the variance over blocks.

    The smallest of three: blocks - 1; effective blocks - 1, for blocks of unequal size; and
    Satterthwaite's 3 (sum u^2)^2 / sum u^4, for influences u of unequal variance (for normal ones
    E u^4 is 3 times the squared variance). The last is left out for a proportion of rare events,
    whose influences are few large ones by nature.
    """
    by_size = min(len(influence) - 1, effective_groups(block) - 1)
    if scale is Scale.PROPORTION:
        return float(by_size)
    satterthwaite = 3 * (influence**2).sum() ** 2 / (influence**4).sum()
    return float(min(by_size, satterthwaite))


def standard_error(value: float, left_out: Floats, scale: Scale) -> float | None:
    """Return the jackknife's standard error on the scale, around the value of all samples.

    For a proportion it is the standard error of the plain values times the slope of the scale,
    because the logit of few events changes by much if one is left out; so it is where a value
    without one block lies at the end of the range. None if `value` lies there, or outside.
    """
    factor = (len(left_out) - 1) / len(left_out)
    plain = float(np.sqrt(factor * ((left_out - value) ** 2).sum()))
    center = float(_forward(np.asarray(value), scale))
    if not np.isfinite(center):
        return None

    moved = _forward(left_out, scale)
    if scale is Scale.PROPORTION or not np.isfinite(moved).all():
        return plain * _slope(value, scale)
    return float(np.sqrt(factor * ((moved - center) ** 2).sum()))


def clopper_pearson(value: float, n_groups: float, level: float = LEVEL) -> tuple[float, float]:
    """Return the exact interval of a proportion that is `value` in all of `n_groups` groups.

    A group counts as one observation, since samples of a group may all be alike.
    """
    from scipy.stats import beta

    tail = (1 - level) / 2
    events = value * n_groups
    low = beta.ppf(tail, events, n_groups - events + 1) if events > 0 else 0.0
    high = beta.ppf(1 - tail, events + 1, n_groups - events) if events < n_groups else 1.0
    return float(low), float(high)


def expanded_tail(n_effective: float, level: float = LEVEL) -> float:
    """Return the tail probability at which percentiles have the width of Student's interval.

    Hesterberg, "What teachers should know about the bootstrap", The American Statistician 2015,
    section 3.3.
    """
    from scipy.stats import norm, t

    student = t.ppf((1 - level) / 2, n_effective - 1)
    return float(norm.cdf(np.sqrt(n_effective / (n_effective - 1)) * student))


def enough(member: Integers) -> bool:
    """Whether groups are enough for an interval, by number and by effective number."""
    return int(member.max()) + 1 >= MIN_GROUPS and effective_groups(member) >= _MIN_EFFECTIVE


def _forward(values: Floats, scale: Scale) -> Floats:
    """Map values of the range to the real line; not finite at its ends and outside."""
    with np.errstate(divide="ignore", invalid="ignore"):
        if scale in (Scale.PROPORTION, Scale.UNIT):
            return np.asarray(np.log(values) - np.log1p(-values))
        if scale is Scale.CORRELATION:
            return np.asarray(np.arctanh(values))
        if scale is Scale.POSITIVE:
            return np.asarray(np.log(values))
    return values


def _backward(values: Floats, scale: Scale) -> Floats:
    """Invert `_forward`."""
    if scale in (Scale.PROPORTION, Scale.UNIT):
        return sigmoid(values)
    if scale is Scale.CORRELATION:
        return np.asarray(np.tanh(values))
    return np.asarray(np.exp(values)) if scale is Scale.POSITIVE else values


def _slope(value: float, scale: Scale) -> float:
    """Return the derivative of `_forward` inside the range."""
    if scale in (Scale.PROPORTION, Scale.UNIT):
        return 1 / (value * (1 - value))
    if scale is Scale.CORRELATION:
        return 1 / (1 - value**2)
    return 1 / value if scale is Scale.POSITIVE else 1.0

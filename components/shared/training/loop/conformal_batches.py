"""Batches that have enough positives for a conformal threshold: which, how many, and how likely.

All of it follows from TRAIN's labels and the order of its samples, before anything is trained.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from components.shared.contracts.errors import ConfigError
from components.shared.contracts.options import RecipeConfig
from components.shared.data.dataset import Dataset
from components.shared.data.splits import Splits
from components.shared.training.loop.sampler import global_batch, steps_per_epoch

Bools = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.int64]

ACTIVE = "train/conformal_active"  # the column of `metrics.csv`
# The term has to act in most steps; else its weight says little about the training.
_LEAST_PROBABILITY = 0.5
_ROUNDING = 1e-9


def least_positives(alpha: float) -> int:
    """Return the number n of positives from which a conformal threshold exists.

    Without a miss, the bound (misses + 1) / (n + 1) is then at most `alpha`.
    """
    return max(1, math.ceil((1 - _ROUNDING) / alpha - 1))


def can_act(positive: Bools, alpha: float) -> bool:
    """Whether the first half of a batch has a threshold, and the second half a negative.

    Args:
        positive: (B,) labels of the batch.
        alpha: False negative rate of the threshold.
    """
    half = len(positive) // 2
    enough = int(positive[:half].sum()) >= least_positives(alpha)
    return enough and not positive[half:].all()


def needed_slots(positive: Bools) -> Positions:
    """Return the batch slots (n,) whose scores decide: about half of a batch.

    They are the positives of the first half and the negatives of the second.
    """
    first_half = np.arange(len(positive)) < len(positive) // 2
    return np.flatnonzero(positive == first_half).astype(np.int64)


def active_fraction(positive: Bools, config: RecipeConfig, epoch: int) -> float:
    """Return the fraction of an epoch's steps in which the term acts.

    Args:
        positive: (N,) labels of TRAIN.
        config: Options of the training.
        epoch: Number of the epoch, from 0.
    """
    n_steps = steps_per_epoch(len(positive), config.global_batch_size)
    active = [
        can_act(positive[_batch(len(positive), config, step)], config.conformal_alpha)
        for step in range(epoch * n_steps, (epoch + 1) * n_steps)
    ]
    return sum(active) / n_steps


def probability(n_positive: int, n_negative: int, batch_size: int, alpha: float) -> float:
    """Return the probability that the term acts in a random batch, exactly.

    Positives in the first half follow a hypergeometric distribution, and so do those in the second,
    given the first.
    """
    # Not above: its import takes a second, which a step without the term need not wait.
    from scipy.stats import hypergeom

    total = n_positive + n_negative
    size = min(batch_size, total)
    half = size // 2
    least = max(least_positives(alpha), half - n_negative)
    counts = np.arange(least, min(half, n_positive) + 1)

    first = hypergeom.pmf(counts, total, n_positive, half)
    rest = size - half
    only_positives = hypergeom.pmf(rest, total - half, n_positive - counts, rest)
    return float((first * (1 - only_positives)).sum())


def check_conformal(config: RecipeConfig, data: Dataset, assignment: Splits) -> None:
    """Refuse a setting whose term would be absent from most steps on TRAIN; as `check_counts`."""
    if not config.conformal_weight:
        return
    positive = config.outcomes(data.class_names).positive
    labels = [data.samples[data.index[sample_id]].label for sample_id in assignment.ids("TRAIN")]
    n_positive = sum(label == positive for label in labels)
    check_counts(config, n_positive, len(labels) - n_positive)


def check_counts(config: RecipeConfig, n_positive: int, n_negative: int) -> None:
    """Refuse a setting whose term would be absent from most steps on so many images.

    Raises:
        ConfigError: The probability that the term acts in a step is below 1/2.
    """
    counts, total = (n_positive, n_negative), n_positive + n_negative
    size, alpha = min(config.global_batch_size, total), config.conformal_alpha
    likely = probability(n_positive, n_negative, size, alpha)
    if likely >= _LEAST_PROBABILITY:
        return

    expected = size // 2 * n_positive / total
    remedies = " or ".join(_remedies(counts, size, alpha)) or "more positive images"
    raise ConfigError(
        f"conformal_weight={config.conformal_weight:g} would act in {likely:.1%} of the steps:"
        f" conformal_alpha={alpha:g} needs {least_positives(alpha)} positives in half of a global"
        f" batch of {size}, where {expected:.1f} are expected; use {remedies}, or"
        " conformal_weight=0"
    )


def _remedies(counts: tuple[int, int], size: int, alpha: float) -> Iterator[str]:
    """Yield the smallest batch, and the smallest rate, that suffice."""
    found = _smallest(
        size, sum(counts), lambda n: probability(*counts, n, alpha) >= _LEAST_PROBABILITY
    )
    if found is not None:
        yield f"global_batch_size of at least {found}"

    found = _smallest(
        int(1000 * alpha), 999, lambda n: probability(*counts, size, n / 1000) >= _LEAST_PROBABILITY
    )
    if found is not None:
        yield f"conformal_alpha of at least {found / 1000:g}"


def _smallest(low: int, high: int, suffices: Callable[[int], bool]) -> int | None:
    """Return the smallest number in (low, high] that suffices, by bisection; None if none does."""
    if not suffices(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return high


def _batch(n_samples: int, config: RecipeConfig, step: int) -> Positions:
    return global_batch(n_samples, config.global_batch_size, config.seed, step)

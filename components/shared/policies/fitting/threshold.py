"""Choice of the decision threshold from few labelled margins.

The threshold that is best on the samples follows single ones: on sets of 56 images it lost .7 to
1.7 points of accuracy against 0.5 where 0.5 was right. So the objective is that of the expected
counts, under P(positive) of every sample, which moves with the whole distribution of the margins.
P(positive) is the calibrated probability, or Platt's map of it where that lowers the cross-fitted
NLL by more than one standard error, so that a shift of the log-odds, as after training with class
weights, is followed where the samples show it. A threshold of 0.5 that decides all samples as the
chosen one is taken in its place. What is allowed by `max_fnr`, and what is reported, is counted on
the samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from components.shared.calibration.compare import LabelledLogits, simplest
from components.shared.calibration.linear import Platt
from components.shared.policies.calibration_split import one_per_group
from components.shared.policies.fitting.sweep import Best, Sweep, best_threshold, sweep
from components.shared.stats.bounds import clopper_pearson_upper
from components.shared.stats.metrics import Bools, Floats, sigmoid


@dataclass(frozen=True)
class FnrLimit:
    """Limit of the false negative rate: of the samples, or with `delta` of their population.

    With delta the upper confidence bound of the rate, for a random positive image of a random
    group, is at most `rate`; one image of each group counts. The rate rises with the threshold, so
    that the limit holds with probability 1 - delta although the threshold is chosen on the same
    samples.
    """

    rate: float
    delta: float | None


@dataclass(frozen=True)
class ThresholdFit:
    """The sweep of the samples, the chosen rule, and the bound of its false negative rate."""

    sweep: Sweep
    best: Best
    fnr_upper_bound: float | None


def fit_threshold(
    truth: Bools,
    margin: Floats,
    groups: Sequence[str],
    *,
    objective: str,
    limit: FnrLimit,
    seed: int,
) -> ThresholdFit:
    """Choose the threshold of a margin.

    Args:
        truth: (N,) bool.
        margin: (N,) float64, the log-odds of the positive class.
        groups: (N,) group name of each sample.
        objective: a key of `OBJECTIVES`.
        limit: limit of the false negative rate.
        seed: seed of the folds, and of the image of each group that the bound counts.

    Raises:
        InfeasibleError: only the rule "everything is positive" is within the limit.
    """
    observed = sweep(truth, margin, objective)
    probability = positive_probability(truth, margin, groups, seed)
    expected = sweep(probability, margin, objective).objective
    if limit.delta is None:
        best = best_threshold(observed, limit.rate, objective=expected)
        return ThresholdFit(observed, _half_if_alike(observed, best), None)

    positives = np.flatnonzero(truth)
    drawn = positives[one_per_group([groups[int(row)] for row in positives], seed)]
    bounds = _fnr_bounds(observed.thresholds, margin[drawn], limit.delta)
    best = best_threshold(observed, limit.rate, objective=expected, fnr=bounds)
    best = _half_if_alike(observed, best)
    bound = _fnr_bounds(np.array([best.threshold]), margin[drawn], limit.delta)[0]

    return ThresholdFit(observed, best, float(bound))


def positive_probability(truth: Bools, margin: Floats, groups: Sequence[str], seed: int) -> Floats:
    """Return (N,) the probability that each sample is positive, from margins (N,)."""
    logits = np.column_stack([np.zeros(len(margin)), margin])
    samples = LabelledLogits(logits, truth.astype(np.int64), groups, ("negative", "positive"))
    chosen, _ = simplest([Platt.NAME], samples, seed)
    if chosen == Platt.NAME:
        return Platt.fit(logits, samples.labels).transform(logits)[:, 1]
    return sigmoid(margin)


def _half_if_alike(observed: Sweep, best: Best) -> Best:
    """Return the rule with threshold 0, which is P = 0.5, where that decides all samples alike."""
    rule, of_half = np.searchsorted(observed.edges, [best.threshold, 0.0], side="right")
    return replace(best, threshold=0.0) if rule == of_half else best


def _fnr_bounds(thresholds: Floats, positives: Floats, delta: float) -> Floats:
    """Return (D + 1,) upper bounds of the false negative rate, from one margin of each group."""
    missed = np.searchsorted(np.sort(positives), thresholds, side="right")
    return clopper_pearson_upper(missed, len(positives), delta)

"""Exact sweep of all decision thresholds of labelled scores, and the best one by an objective.

The rules are "positive if and only if score > threshold", one for each gap between neighbouring
distinct scores and one beyond each end. Scores may be on any scale; policies use log-odds in
float64, where confident scores do not collapse to 1.

Own code, because scikit-learn's curves serve one weight vector per call and leave plateaus and
attained scores to the caller.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from components.shared.contracts.errors import InfeasibleError
from components.shared.stats.metrics import (
    Bools,
    Floats,
    Weights,
    f1_of_counts,
    mcc_of_counts,
    multiplicities,
    ratio,
)

# Values of the objective that differ by less are equal.
_EQUAL = 1e-12
# Beyond the extreme scores all thresholds decide alike; at a distance of 1 in log-odds the
# probability differs from 0 and 1.
_BEYOND = 1.0


def _balanced_accuracy(tn: Floats, fp: Floats, fn: Floats, tp: Floats) -> Floats:
    """Return the mean recall of both classes; the recall of an absent class counts 0."""
    return 0.5 * (ratio(tp, tp + fn, 0.0) + ratio(tn, tn + fp, 0.0))


# Functions of (true negatives, false positives, false negatives, true positives), arrays of equal
# shape. A new objective is one entry here: the configuration takes its choices from the keys.
OBJECTIVES: dict[str, Callable[[Floats, Floats, Floats, Floats], Floats]] = {
    "mcc": mcc_of_counts,
    "f1": f1_of_counts,
    "balanced_accuracy": _balanced_accuracy,
}


@dataclass(frozen=True)
class Sweep:
    """All D + 1 rules for D distinct scores, thresholds ascending.

    Rule k lies in the gap between edges k and k + 1. edges: (D + 2,), the distinct scores between
    two outer bounds; thresholds: (D + 1,), the middles of the gaps; objective and rates: (D + 1,),
    or (R, D + 1) for (R, N) weights.
    """

    edges: Floats
    thresholds: Floats
    objective: Floats
    false_negative_rate: Floats
    false_positive_rate: Floats


@dataclass(frozen=True)
class Best:
    """The chosen rule and what it achieves on the samples it was fitted on."""

    threshold: float
    objective: float
    false_negative_rate: float
    false_positive_rate: float


def sweep(truth: Bools | Floats, scores: Floats, objective: str, weights: Weights = None) -> Sweep:
    """Evaluate all rules in O(N log N): one sort, then cumulated counts.

    Args:
        truth: (N,) bool; or float64 probabilities that the samples are positive, which give the
            objective and rates of expected counts.
        scores: (N,) float64, finite.
        objective: a key of `OBJECTIVES`.
        weights: as in `metrics`.
    """
    order = np.argsort(scores)
    ordered, positive = scores[order], truth[order].astype(np.float64)
    last_of_tie = np.r_[np.flatnonzero(np.diff(ordered)), len(ordered) - 1]

    w = multiplicities(len(truth), weights)[..., order]
    start = np.zeros((*w.shape[:-1], 1))
    fn = np.concatenate([start, np.cumsum(w * positive, axis=-1)[..., last_of_tie]], axis=-1)
    tn = np.concatenate([start, np.cumsum(w * (1 - positive), axis=-1)[..., last_of_tie]], axis=-1)
    tp, fp = fn[..., -1:] - fn, tn[..., -1:] - tn

    distinct = ordered[last_of_tie]
    edges = np.r_[distinct[0] - 2 * _BEYOND, distinct, distinct[-1] + 2 * _BEYOND]

    return Sweep(
        edges=edges,
        thresholds=_middle(edges[:-1], edges[1:]),
        objective=OBJECTIVES[objective](tn, fp, fn, tp),
        false_negative_rate=ratio(fn, tp + fn, 0.0),
        false_positive_rate=ratio(fp, tn + fp, 0.0),
    )


def best_threshold(
    result: Sweep,
    max_fnr: float = 1.0,
    *,
    objective: Floats | None = None,
    fnr: Floats | None = None,
) -> Best:
    """Return the rule with the largest objective and a false negative rate of at most `max_fnr`.

    Neighbouring rules that are equally good form a plateau; of several plateaus the widest (then
    the lowest) counts, and the threshold is its middle, moved to the next gap where the middle is
    an attained score.

    Args:
        result: sweep of the samples.
        max_fnr: limit of the false negative rate.
        objective: (D + 1,) what the choice goes by, in place of the samples' own objective.
        fnr: (D + 1,) what the limit is about, in place of the samples' own false negative rate.

    Raises:
        InfeasibleError: only the rule "everything is positive" has such a false negative rate.
    """
    value = result.objective if objective is None else objective
    rate = result.false_negative_rate if fnr is None else fnr
    found = _best_rule(result.edges, value, rate, max_fnr)
    if found is None:
        raise InfeasibleError(
            f"max_fnr={max_fnr} leaves only the rule that flags everything; the lowest false"
            f" negative rate of a separating threshold is {rate[1]:.4f}; increase max_fnr"
        )

    rule, threshold = found

    return Best(
        threshold,
        float(result.objective[rule]),
        float(result.false_negative_rate[rule]),
        float(result.false_positive_rate[rule]),
    )


def best_thresholds(result: Sweep, max_fnr: float = 1.0) -> Floats:
    """Return (R,) the best threshold of each replicate of a sweep with (R, N) weights.

    It is nan where a replicate is infeasible or has one class only.
    """
    thresholds = np.full(len(result.objective), np.nan)
    # A replicate without a class has one of the two rates 0 under every rule.
    has_both = (result.false_negative_rate[:, -1] > 0) & (result.false_positive_rate[:, 0] > 0)
    for row in np.flatnonzero(has_both):
        found = _best_rule(
            result.edges, result.objective[row], result.false_negative_rate[row], max_fnr
        )
        thresholds[row] = np.nan if found is None else found[1]

    return thresholds


def _best_rule(
    edges: Floats, objective: Floats, fnr: Floats, max_fnr: float
) -> tuple[int, float] | None:
    """Return (index of a rule in the best plateau, threshold).

    None where only flagging everything has a false negative rate of at most `max_fnr`.
    """
    allowed = fnr <= max_fnr + _EQUAL
    if not allowed[1:].any():
        return None

    values = np.where(allowed, objective, -np.inf)
    at_best = values >= values.max() - _EQUAL

    # Plateaus are runs of True: their first rules, and the first rules after them.
    bounds = np.flatnonzero(np.diff(np.r_[False, at_best, False].astype(np.int8)))
    starts, ends = bounds[::2], bounds[1::2]
    widest = int(np.argmax(edges[ends] - edges[starts]))
    middle = float(_middle(edges[starts[widest]], edges[ends[widest]]))

    rule = int(np.searchsorted(edges, middle, side="right")) - 1
    is_attained_score = rule > starts[widest] and middle == edges[rule]
    if is_attained_score:
        middle = float(_middle(edges[rule], edges[rule + 1]))

    return rule, middle


def _middle(low: Floats, high: Floats) -> Floats:
    """Return a value with low <= value < high.

    "score > value" then separates the two even where they are adjacent floats.
    """
    middle = low + (high - low) / 2
    return np.where(middle < high, middle, low)

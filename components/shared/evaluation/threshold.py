"""At which score is the decision best? An exact sweep over all distinct scores."""

from dataclasses import dataclass

import numpy as np

from components.shared.errors import InfeasibleError
from components.shared.evaluation.metrics import Bools, Floats, Weights

OBJECTIVES = ("mcc", "f1", "balanced_accuracy")


@dataclass(frozen=True)
class Sweep:
    """Every distinct decision rule "positive iff score > threshold": arrays (D + 1,), thresholds ascending.

    Thresholds lie midway between neighbouring distinct scores; the first and last accept all and none.
    """

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


def sweep(truth: Bools, scores: Floats, objective: str, weights: Weights = None) -> Sweep:
    """All rules in O(n log n): one sort, then cumulated counts. scores (N,) float64, truth (N,) bool."""
    w = np.ones(len(truth)) if weights is None else weights
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    ends = np.r_[np.flatnonzero(np.diff(ordered)), len(ordered) - 1]
    fn = np.r_[0.0, np.cumsum(np.where(truth[order], w[order], 0.0))[ends]]
    tn = np.r_[0.0, np.cumsum(np.where(truth[order], 0.0, w[order]))[ends]]
    distinct = ordered[ends]
    # Beyond the extremes any value does; a margin of 1 in log-odds keeps the probability away from 0 and 1.
    thresholds = np.r_[distinct[0] - 1, (distinct[:-1] + distinct[1:]) / 2, distinct[-1] + 1]
    values = _objective(objective, tn, tn[-1] - tn, fn, fn[-1] - fn)
    return Sweep(thresholds, values, fn / max(fn[-1], 1e-300), (tn[-1] - tn) / max(tn[-1], 1e-300))


def best_threshold(result: Sweep, max_fnr: float = 1.0) -> Best:
    """The rule with the largest objective among those with a false negative rate of at most `max_fnr`.

    Ties: the longest run of neighbouring best rules (the lowest of equal runs), and its middle by threshold value.
    Raises InfeasibleError where no rule but "everything is positive" keeps the ceiling.
    """
    allowed = result.false_negative_rate <= max_fnr + 1e-12
    if not allowed[1:].any():
        raise InfeasibleError(
            f"max_fnr={max_fnr} leaves only the rule that flags everything; the lowest false negative rate of a "
            f"separating threshold is {result.false_negative_rate[1]:.4f}"
        )
    values = np.where(allowed, result.objective, -np.inf)
    at_best = values >= values.max() - 1e-12
    edges = np.flatnonzero(np.diff(np.r_[False, at_best, False].astype(np.int8)))
    starts, ends = edges[::2], edges[1::2] - 1
    widths = result.thresholds[ends] - result.thresholds[starts]
    run = int(np.argmax(widths))
    middle = (result.thresholds[starts[run]] + result.thresholds[ends[run]]) / 2
    index = int(starts[run] + np.argmin(np.abs(result.thresholds[starts[run] : ends[run] + 1] - middle)))
    return Best(
        float(result.thresholds[index]),
        float(result.objective[index]),
        float(result.false_negative_rate[index]),
        float(result.false_positive_rate[index]),
    )


def _objective(name: str, tn: Floats, fp: Floats, fn: Floats, tp: Floats) -> Floats:
    if name == "mcc":
        scale = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
        return np.asarray(np.divide(tp * tn - fp * fn, scale, out=np.zeros_like(tp), where=scale > 0))
    if name == "f1":
        total = 2 * tp + fp + fn
        return np.asarray(np.divide(2 * tp, total, out=np.zeros_like(tp), where=total > 0))
    return np.asarray(0.5 * (tp / max(tp[0] + fn[0], 1e-300) + tn / max(tn[0] + fp[0], 1e-300)))

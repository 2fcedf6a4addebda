"""How good are scores and decisions on labelled samples? One definition of each metric, numpy only.

`truth` is (N,) bool, True for the positive class; scores rank towards positive. Every function
takes non-negative `weights`, the multiplicities of bootstrap replicates: (N,) gives one value, (R,
N) gives (R,) values from one shared sort. Without weights a metric is a `numpy.float64`, which is a
`float`.
"""

from typing import overload

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Weights = Floats | None


def sigmoid(margin: Floats) -> Floats:
    """P(positive) of log-odds, elementwise, without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -margin)))


def log_softmax(logits: npt.NDArray[np.floating]) -> Floats:
    """(N, C) float64 log-probabilities of logits (N, C), without overflow."""
    wide = np.asarray(logits, dtype=np.float64)
    return np.asarray(wide - np.logaddexp.reduce(wide, axis=1, keepdims=True))


def softmax(logits: npt.NDArray[np.floating]) -> Floats:
    """(N, C) float64 probabilities of logits (N, C)."""
    return np.asarray(np.exp(log_softmax(logits)))


def confusion(truth: Bools, decision: Bools, weights: Weights = None) -> Floats:
    """Weighted counts (4,) or (4, R): true negatives, false positives, false negatives, true
    positives.
    """
    cells: Floats = np.eye(4)[2 * truth.astype(np.int64) + decision]
    return np.moveaxis(multiplicities(len(truth), weights) @ cells, -1, 0)


def accuracy(truth: Bools, decision: Bools, weights: Weights = None) -> Floats:
    """Share of correct decisions."""
    return weighted_mean(truth == decision, weights)


def balanced_accuracy(truth: Bools, decision: Bools, weights: Weights = None) -> Floats:
    """Mean of the recalls of both classes; the recall of the present one where the other is
    absent.
    """
    tn, fp, fn, tp = confusion(truth, decision, weights)
    specificity, sensitivity = ratio(tn, tn + fp, 0.0), ratio(tp, tp + fn, 0.0)
    return ratio(specificity + sensitivity, np.sign(tn + fp) + np.sign(tp + fn), np.nan)


def mcc(truth: Bools, decision: Bools, weights: Weights = None) -> Floats:
    """Matthews correlation coefficient in [-1, 1]; 0 where a class is absent from labels or
    decisions.
    """
    return mcc_of_counts(*confusion(truth, decision, weights))


def mcc_of_counts(tn: Floats, fp: Floats, fn: Floats, tp: Floats) -> Floats:
    """Matthews correlation coefficient of counts of equal shape; 0 where a class is absent."""
    return ratio(tp * tn - fp * fn, np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)), 0.0)


def f1(truth: Bools, decision: Bools, weights: Weights = None) -> Floats:
    """Harmonic mean of precision and recall of the positive class; 0 where neither exists."""
    _, fp, fn, tp = confusion(truth, decision, weights)
    return ratio(2 * tp, 2 * tp + fp + fn, 0.0)


def roc_curve(
    truth: Bools, scores: Floats, weights: Weights = None
) -> tuple[Floats, Floats, Floats]:
    """(false positive rates, true positive rates, thresholds), each (D + 1,), for "score >=
    threshold", descending.

    The first point accepts nothing: its threshold is +inf. D counts distinct scores. A rate is nan
    without its class. With (R, N) weights the rates are (R, D + 1).
    """
    positives, negatives, thresholds = cumulated(truth, scores, weights)
    return (
        ratio(negatives, negatives[..., -1:], np.nan),
        ratio(positives, positives[..., -1:], np.nan),
        thresholds,
    )


def auroc(truth: Bools, scores: Floats, weights: Weights = None) -> Floats:
    """Area under the ROC curve, ties counted half; nan where a class is absent."""
    positives, negatives, _ = cumulated(truth, scores, weights)
    area = np.asarray(np.trapezoid(positives, negatives, axis=-1))
    return ratio(area, positives[..., -1] * negatives[..., -1], np.nan)


def average_precision(truth: Bools, scores: Floats, weights: Weights = None) -> Floats:
    """Sum of precision times recall step over distinct scores (scikit-learn's definition); nan
    without positives.
    """
    positives, negatives, _ = cumulated(truth, scores, weights)
    precision = ratio(positives[..., 1:], positives[..., 1:] + negatives[..., 1:], 0.0)
    return ratio(total(np.diff(positives, axis=-1) * precision), positives[..., -1], np.nan)


def brier(truth: Bools, probability: Floats, weights: Weights = None) -> Floats:
    """Mean squared error of P(positive), in [0, 1]: half of the two-class sum."""
    return weighted_mean((probability - truth) ** 2, weights)


def brier_multiclass(labels: Integers, probabilities: Floats, weights: Weights = None) -> Floats:
    """Mean squared distance of probabilities (N, C) from the one-hot labels (N,), summed over
    classes; in [0, 2].
    """
    distance = probabilities - np.eye(probabilities.shape[1])[labels]
    return weighted_mean((distance**2).sum(axis=1), weights)


def nll(truth: Bools, margin: Floats, weights: Weights = None) -> Floats:
    """Mean negative log-likelihood (nats) of log-odds (N,)."""
    return weighted_mean(np.logaddexp(0.0, np.where(truth, -margin, margin)), weights)


def nll_multiclass(
    labels: Integers, logits: npt.NDArray[np.floating], weights: Weights = None
) -> Floats:
    """Mean negative log-likelihood (nats) of logits (N, C) at labels (N,)."""
    return weighted_mean(-log_softmax(logits)[np.arange(len(labels)), labels], weights)


@overload
def coverage_at_precision(
    truth: Bools, scores: Floats, target: float, weights: None = None
) -> float | None: ...
@overload
def coverage_at_precision(
    truth: Bools, scores: Floats, target: float, weights: Floats
) -> Floats: ...
def coverage_at_precision(
    truth: Bools, scores: Floats, target: float, weights: Weights = None
) -> Floats | float | None:
    """Largest share of samples flagged positive at a precision of at least `target`, over all
    distinct thresholds.

    None where no threshold reaches it; nan in the place of None where weights are given.
    """
    positives, negatives, _ = cumulated(truth, scores, weights)
    flagged = positives[..., 1:] + negatives[..., 1:]
    reached = (flagged > 0) & (positives[..., 1:] >= target * flagged * (1 - 1e-12))
    return largest_where(reached, ratio(flagged, flagged[..., -1:], 0.0), weights)


def largest_where(reached: Bools, coverage: Floats, weights: Weights) -> Floats | float | None:
    """The largest of `coverage` (..., D) where `reached`: None without weights, nan with them,
    where there is none.
    """
    if weights is None:
        return float(coverage[reached].max()) if reached.any() else None
    largest: Floats = np.where(reached, coverage, -1.0).max(axis=-1)
    return np.where(largest < 0, np.nan, largest)[()]


def multiplicities(count: int, weights: Weights) -> Floats:
    """`weights`, or (N,) ones in their place."""
    return np.ones(count) if weights is None else weights


def weighted_mean(values: Floats | Bools, weights: Weights) -> Floats:
    """Mean of values (N,) under weights, () or (R,)."""
    wide = values.astype(np.float64)
    return ratio(
        total(wide) if weights is None else weights @ wide,
        total(multiplicities(len(wide), weights)),
        np.nan,
    )


def total(values: Floats) -> Floats:
    """Sum over the last axis."""
    summed: Floats = values.sum(axis=-1)
    return summed


def ratio(numerator: Floats, denominator: Floats, otherwise: float) -> Floats:
    """Elementwise quotient, `otherwise` where the denominator is not positive."""
    shape = np.broadcast_shapes(np.shape(numerator), np.shape(denominator))
    out = np.full(shape, otherwise)
    quotient: Floats = np.divide(
        numerator, denominator, out=out, where=np.broadcast_to(denominator > 0, shape)
    )[()]
    return quotient


def cumulated(truth: Bools, scores: Floats, weights: Weights) -> tuple[Floats, Floats, Floats]:
    """Weighted positives and negatives (..., D + 1) with score >= each threshold (D + 1,),
    descending from +inf.

    The only sort: O(N log N) once, then O(N) for each replicate.
    """
    order = np.argsort(-scores)
    ordered = scores[order]
    last = np.r_[np.flatnonzero(np.diff(ordered)), len(scores) - 1]
    w = np.take(multiplicities(len(truth), weights), order, axis=-1)
    positives = np.cumsum(w * truth[order], axis=-1)[..., last]
    flagged = np.cumsum(w, axis=-1)[..., last]
    start = np.zeros((*w.shape[:-1], 1))
    positives = np.concatenate([start, positives], axis=-1)
    return (
        positives,
        np.concatenate([start, flagged], axis=-1) - positives,
        np.r_[np.inf, ordered[last]],
    )

"""Metrics of scores and decisions on labelled samples, vectorised over bootstrap replicates.

`truth` is (N,) bool, True for the positive class; scores (N,) float64 rank towards positive. Every
function takes non-negative `weights`, the multiplicities of bootstrap replicates: (N,) gives one
value, (R, N) gives (R,) values from one shared sort. Without weights a metric is a `numpy.float64`,
which is a `float`.

Own code, because scikit-learn's metrics take one weight vector per call and sort anew each time;
the tests compare every metric with scikit-learn.
"""

from typing import overload

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Weights = Floats | None

# --- Probabilities of logits.


def sigmoid(margin: Floats) -> Floats:
    """Return P(positive) of log-odds, elementwise, without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -margin)))


def log_softmax(logits: npt.NDArray[np.floating]) -> Floats:
    """Return (N, C) float64 log-probabilities of logits (N, C), without overflow."""
    logits64 = np.asarray(logits, dtype=np.float64)
    return np.asarray(logits64 - np.logaddexp.reduce(logits64, axis=1, keepdims=True))


def softmax(logits: npt.NDArray[np.floating]) -> Floats:
    """Return (N, C) float64 probabilities of logits (N, C)."""
    return np.asarray(np.exp(log_softmax(logits)))


# --- Metrics of decisions.


def confusion(truth: Bools, decision: Bools, weights: Weights = None) -> Floats:
    """Return weighted counts (4,) or (4, R) in the order TN, FP, FN, TP."""
    cells: Floats = np.eye(4)[2 * truth.astype(np.int64) + decision]
    return np.moveaxis(multiplicities(len(truth), weights) @ cells, -1, 0)


def accuracy(truth: Bools, decision: Bools, weights: Weights = None) -> Floats:
    """Return the fraction of correct decisions."""
    return weighted_mean(truth == decision, weights)


def balanced_accuracy(truth: Bools, decision: Bools, weights: Weights = None) -> Floats:
    """Return the mean recall of both classes; of the present one where the other is absent."""
    tn, fp, fn, tp = confusion(truth, decision, weights)
    specificity, sensitivity = ratio(tn, tn + fp, 0.0), ratio(tp, tp + fn, 0.0)
    return ratio(specificity + sensitivity, np.sign(tn + fp) + np.sign(tp + fn), np.nan)


def mcc(truth: Bools, decision: Bools, weights: Weights = None) -> Floats:
    """Return the Matthews correlation coefficient, in [-1, 1].

    It is 0 where a class is absent from labels or decisions.
    """
    return mcc_of_counts(*confusion(truth, decision, weights))


def f1(truth: Bools, decision: Bools, weights: Weights = None) -> Floats:
    """Return the harmonic mean of precision and recall; 0 where neither exists."""
    return f1_of_counts(*confusion(truth, decision, weights))


def mcc_of_counts(tn: Floats, fp: Floats, fn: Floats, tp: Floats) -> Floats:
    """Return the Matthews correlation coefficient of counts of equal shape."""
    return ratio(tp * tn - fp * fn, np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)), 0.0)


def f1_of_counts(tn: Floats, fp: Floats, fn: Floats, tp: Floats) -> Floats:
    """Return the F1 score of counts of equal shape; 0 where it does not exist."""
    del tn
    return ratio(2 * tp, 2 * tp + fp + fn, 0.0)


# --- Metrics of rankings.


def roc_curve(
    truth: Bools, scores: Floats, weights: Weights = None
) -> tuple[Floats, Floats, Floats]:
    """Return the ROC curve over the D distinct scores.

    Returns:
        False positive rates and true positive rates, (D + 1,) or (R, D + 1), and thresholds
        (D + 1,) for "score >= threshold", descending. The first point accepts nothing: its
        threshold is +inf. A rate is nan without its class.
    """
    positives, negatives, thresholds = cumulated(truth, scores, weights)
    return (
        ratio(negatives, negatives[..., -1:], np.nan),
        ratio(positives, positives[..., -1:], np.nan),
        thresholds,
    )


def auroc(truth: Bools, scores: Floats, weights: Weights = None) -> Floats:
    """Return the area under the ROC curve, ties counted half; nan where a class is absent."""
    positives, negatives, _ = cumulated(truth, scores, weights)
    area = np.asarray(np.trapezoid(positives, negatives, axis=-1))
    return ratio(area, positives[..., -1] * negatives[..., -1], np.nan)


def average_precision(truth: Bools, scores: Floats, weights: Weights = None) -> Floats:
    """Return the sum of precision times recall step over distinct scores; nan without positives.

    This is scikit-learn's definition, without interpolation.
    """
    positives, negatives, _ = cumulated(truth, scores, weights)
    precision = ratio(positives[..., 1:], positives[..., 1:] + negatives[..., 1:], 0.0)
    return ratio(total(np.diff(positives, axis=-1) * precision), positives[..., -1], np.nan)


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
    """Return the largest fraction of samples flagged positive at a precision of at least `target`.

    All distinct thresholds compete. The result is None where none reaches the target, and nan in
    the place of None where weights are given.
    """
    positives, negatives, _ = cumulated(truth, scores, weights)
    flagged = positives[..., 1:] + negatives[..., 1:]
    # The tolerance admits a precision that equals the target but for rounding.
    reached = (flagged > 0) & (positives[..., 1:] >= target * flagged * (1 - 1e-12))
    return largest_where(reached, ratio(flagged, flagged[..., -1:], 0.0), weights)


# --- Metrics of probabilities.


def brier(truth: Bools, probability: Floats, weights: Weights = None) -> Floats:
    """Return the mean squared error of P(positive), in [0, 1]: half of the two-class sum."""
    return weighted_mean((probability - truth) ** 2, weights)


def brier_multiclass(labels: Integers, probabilities: Floats, weights: Weights = None) -> Floats:
    """Return the mean squared distance of probabilities (N, C) from one-hot labels (N,).

    The distance is summed over classes: the result lies in [0, 2].
    """
    distance = probabilities - np.eye(probabilities.shape[1])[labels]
    return weighted_mean((distance**2).sum(axis=1), weights)


def nll(truth: Bools, margin: Floats, weights: Weights = None) -> Floats:
    """Return the mean negative log-likelihood, in nats, of log-odds (N,)."""
    return weighted_mean(np.logaddexp(0.0, np.where(truth, -margin, margin)), weights)


def nll_multiclass(
    labels: Integers, logits: npt.NDArray[np.floating], weights: Weights = None
) -> Floats:
    """Return the mean negative log-likelihood, in nats, of logits (N, C) at labels (N,)."""
    return weighted_mean(-log_softmax(logits)[np.arange(len(labels)), labels], weights)


# --- Weighted sums and quotients that all metrics use.


def largest_where(reached: Bools, coverage: Floats, weights: Weights) -> Floats | float | None:
    """Return the largest of `coverage` (..., D) where `reached`.

    Where nothing is reached, the result is None without weights and nan with weights.
    """
    if weights is None:
        return float(coverage[reached].max()) if reached.any() else None
    largest: Floats = np.where(reached, coverage, -1.0).max(axis=-1)
    return np.where(largest < 0, np.nan, largest)[()]


def multiplicities(count: int, weights: Weights) -> Floats:
    """Return `weights`, or (count,) ones in their place."""
    return np.ones(count) if weights is None else weights


def weighted_mean(values: Floats | Bools, weights: Weights) -> Floats:
    """Return the mean of values (N,) under weights, () or (R,)."""
    values64 = values.astype(np.float64)
    return ratio(
        total(values64) if weights is None else weights @ values64,
        total(multiplicities(len(values64), weights)),
        np.nan,
    )


def total(values: Floats) -> Floats:
    """Return the sum over the last axis."""
    summed: Floats = values.sum(axis=-1)
    return summed


def ratio(numerator: Floats, denominator: Floats, otherwise: float) -> Floats:
    """Return the elementwise quotient, `otherwise` where the denominator is not positive."""
    shape = np.broadcast_shapes(np.shape(numerator), np.shape(denominator))
    out = np.full(shape, otherwise)
    quotient: Floats = np.divide(
        numerator, denominator, out=out, where=np.broadcast_to(denominator > 0, shape)
    )[()]
    return quotient


def cumulated(truth: Bools, scores: Floats, weights: Weights) -> tuple[Floats, Floats, Floats]:
    """Cumulate positives and negatives over the D distinct scores, from the highest down.

    The only sort is here: O(N log N) once, then O(N) for each replicate.

    Returns:
        Weighted positives and negatives (..., D + 1) with score >= each threshold, and the
        thresholds (D + 1,), descending from +inf.
    """
    order = np.argsort(-scores)
    ordered = scores[order]
    last_of_tie = np.r_[np.flatnonzero(np.diff(ordered)), len(scores) - 1]

    w = np.take(multiplicities(len(truth), weights), order, axis=-1)
    positives = np.cumsum(w * truth[order], axis=-1)[..., last_of_tie]
    flagged = np.cumsum(w, axis=-1)[..., last_of_tie]

    start = np.zeros((*w.shape[:-1], 1))
    positives = np.concatenate([start, positives], axis=-1)

    return (
        positives,
        np.concatenate([start, flagged], axis=-1) - positives,
        np.r_[np.inf, ordered[last_of_tie]],
    )

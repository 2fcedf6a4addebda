"""How good are scores and decisions on labelled samples? One definition of each metric, numpy only.

Every function takes optional non-negative `weights` (N,), the multiplicities of a bootstrap replicate. `truth` is
(N,) bool, True for the positive class; scores rank towards positive.
"""

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Weights = npt.NDArray[np.float64] | None


def sigmoid(margin: Floats) -> Floats:
    """P(positive) (N,) of log-odds (N,), without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -margin)))


def confusion(truth: Bools, decision: Bools, weights: Weights = None) -> tuple[float, float, float, float]:
    """(true negatives, false positives, false negatives, true positives), weighted counts."""
    w = np.ones(len(truth)) if weights is None else weights
    cells = np.bincount(2 * truth.astype(np.int64) + decision, weights=w, minlength=4)
    return float(cells[0]), float(cells[1]), float(cells[2]), float(cells[3])


def accuracy(truth: Bools, decision: Bools, weights: Weights = None) -> float:
    """Share of correct decisions."""
    tn, fp, fn, tp = confusion(truth, decision, weights)
    return (tn + tp) / (tn + fp + fn + tp)


def balanced_accuracy(truth: Bools, decision: Bools, weights: Weights = None) -> float:
    """Mean of the recalls of both classes; of the present one where the other is absent."""
    tn, fp, fn, tp = confusion(truth, decision, weights)
    recalls = [hits / total for hits, total in ((tn, tn + fp), (tp, tp + fn)) if total > 0]
    return sum(recalls) / len(recalls)


def mcc(truth: Bools, decision: Bools, weights: Weights = None) -> float:
    """Matthews correlation coefficient; 0 where a class is absent from labels or decisions."""
    tn, fp, fn, tp = confusion(truth, decision, weights)
    scale = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return float((tp * tn - fp * fn) / np.sqrt(scale)) if scale > 0 else 0.0


def f1(truth: Bools, decision: Bools, weights: Weights = None) -> float:
    """Harmonic mean of precision and recall of the positive class; 0 where neither exists."""
    _, fp, fn, tp = confusion(truth, decision, weights)
    return 2 * tp / (2 * tp + fp + fn) if tp + fp + fn > 0 else 0.0


def roc_curve(truth: Bools, scores: Floats, weights: Weights = None) -> tuple[Floats, Floats, Floats]:
    """(false positive rates, true positive rates, thresholds), each (D + 1,), for "score >= threshold", descending.

    The first point accepts nothing: its threshold is +inf. D counts distinct scores. A rate is nan without its class.
    """
    positives, negatives, thresholds = _cumulated(truth, scores, weights)
    with np.errstate(invalid="ignore"):
        return negatives / negatives[-1], positives / positives[-1], thresholds


def auroc(truth: Bools, scores: Floats, weights: Weights = None) -> float:
    """Area under the ROC curve, ties counted half; nan where a class is absent."""
    fpr, tpr, _ = roc_curve(truth, scores, weights)
    return float(np.trapezoid(tpr, fpr))


def average_precision(truth: Bools, scores: Floats, weights: Weights = None) -> float:
    """Sum of precision times recall step over distinct scores (scikit-learn's definition); nan without positives."""
    positives, negatives, _ = _cumulated(truth, scores, weights)
    if positives[-1] == 0:
        return float("nan")
    flagged = positives[1:] + negatives[1:]
    precision = np.divide(positives[1:], flagged, out=np.zeros_like(flagged), where=flagged > 0)
    return float((np.diff(positives) * precision).sum() / positives[-1])


def brier(truth: Bools, probability: Floats, weights: Weights = None) -> float:
    """Mean squared error of P(positive); in [0, 1]."""
    return float(np.average((probability - truth) ** 2, weights=weights))


def nll(truth: Bools, margin: Floats, weights: Weights = None) -> float:
    """Mean negative log-likelihood (nats) of log-odds."""
    return float(np.average(np.logaddexp(0.0, np.where(truth, -margin, margin)), weights=weights))


def coverage_at_precision(truth: Bools, scores: Floats, target: float, weights: Weights = None) -> float | None:
    """Largest share of samples flagged positive at a precision of at least `target`; None where none exists."""
    positives, negatives, _ = _cumulated(truth, scores, weights)
    flagged = positives[1:] + negatives[1:]
    precision = np.divide(positives[1:], flagged, out=np.zeros_like(flagged), where=flagged > 0)
    reached = np.flatnonzero((precision >= target) & (flagged > 0))
    return float(flagged[reached[-1]] / flagged[-1]) if len(reached) else None


def _cumulated(truth: Bools, scores: Floats, weights: Weights) -> tuple[Floats, Floats, Floats]:
    """Weighted positives and negatives with score >= each distinct threshold, descending, starting from nothing."""
    w = np.ones(len(truth)) if weights is None else weights
    order = np.argsort(-scores, kind="stable")
    sorted_scores = scores[order]
    last = np.r_[np.flatnonzero(np.diff(sorted_scores)), len(scores) - 1]
    positives = np.cumsum(np.where(truth[order], w[order], 0.0))[last]
    negatives = np.cumsum(np.where(truth[order], 0.0, w[order]))[last]
    return np.r_[0.0, positives], np.r_[0.0, negatives], np.r_[np.inf, sorted_scores[last]]

"""Metrics on VAL_SELECT by which epochs and models are selected; larger is better but for the NLL.

All have the arguments of `Metric`: logits (N, C), labels (N,) int64, the outcomes of the task, and
weights as in `components.shared.stats.metrics`. Areas of a multiclass task are the means of every
class against the rest.
"""

from collections.abc import Callable

import numpy as np

from components.shared.calibration.calibrator import class_log_odds
from components.shared.contracts.outcomes import Outcomes
from components.shared.stats import metrics, multiclass
from components.shared.stats.jackknife import Scale
from components.shared.stats.metrics import Floats, Integers, Weights

Metric = Callable[[Floats, Integers, Outcomes, Weights], Floats]


def accuracy(
    logits: Floats, labels: Integers, outcomes: Outcomes, weights: Weights = None
) -> Floats:
    """Return the fraction of samples whose most probable outcome is the true one.

    Every class of a multiclass task is an outcome, and "P(positive) > 1/2" that of a binary one.
    """
    if outcomes.positive is None:
        return metrics.weighted_mean(logits.argmax(axis=1) == labels, weights)
    positive = outcomes.positive
    found = class_log_odds(logits, positive) > 0
    return metrics.accuracy(labels == positive, found, weights)


def mcc(logits: Floats, labels: Integers, outcomes: Outcomes, weights: Weights = None) -> Floats:
    """Return Matthews' correlation of the most probable outcome with the true one."""
    if outcomes.positive is None:
        n_classes = len(outcomes.class_names)
        return multiclass.mcc(labels, logits.argmax(axis=1), n_classes, weights)
    positive = outcomes.positive
    return metrics.mcc(labels == positive, class_log_odds(logits, positive) > 0, weights)


def auroc(logits: Floats, labels: Integers, outcomes: Outcomes, weights: Weights = None) -> Floats:
    """Return the area under the ROC curve of P(positive), or the mean over all classes."""
    return _mean_over_classes(metrics.auroc, logits, labels, outcomes, weights)


def average_precision(
    logits: Floats, labels: Integers, outcomes: Outcomes, weights: Weights = None
) -> Floats:
    """Return the average precision of P(positive), or the mean over all classes."""
    return _mean_over_classes(metrics.average_precision, logits, labels, outcomes, weights)


def nll(logits: Floats, labels: Integers, outcomes: Outcomes, weights: Weights = None) -> Floats:
    """Return the mean negative log-likelihood, in nats, over all classes."""
    del outcomes
    return metrics.nll_multiclass(labels, logits, weights)


METRICS: dict[str, Metric] = {
    "val_select/acc": accuracy,
    "val_select/mcc": mcc,
    "val_select/auroc": auroc,
    "val_select/ap": average_precision,
    "val_select/nll": nll,
}


# How the interval of each metric is computed.
SCALES = {
    "val_select/acc": Scale.PROPORTION,
    "val_select/mcc": Scale.CORRELATION,
    "val_select/auroc": Scale.UNIT,
    "val_select/ap": Scale.UNIT,
    "val_select/nll": Scale.POSITIVE,
}


def selection_metrics(
    logits: Floats | np.ndarray, labels: Integers, outcomes: Outcomes
) -> dict[str, float]:
    """Return all metrics of logits (N, C) and labels (N,), by name."""
    logits64 = np.asarray(logits, dtype=np.float64)
    return {
        name: float(metric(logits64, labels, outcomes, None)) for name, metric in METRICS.items()
    }


def _mean_over_classes(
    area: multiclass.Ranking,
    logits: Floats,
    labels: Integers,
    outcomes: Outcomes,
    weights: Weights,
) -> Floats:
    """Return the area of the positive class, or the mean over the classes that occur."""
    if outcomes.positive is None:
        return multiclass.macro_ranking(area, labels, metrics.softmax(logits), weights)
    positive = outcomes.positive
    return area(labels == positive, class_log_odds(logits, positive), weights)

"""Metrics on VAL_SELECT by which epochs and models are selected; larger is better but for the NLL.

All have the arguments of `Metric`: logits (N, C), labels (N,) int64, the index of the positive
class, and weights as in `components.shared.stats.metrics`.
"""

from collections.abc import Callable

import numpy as np

from components.shared.calibration.calibrator import class_log_odds
from components.shared.stats import metrics
from components.shared.stats.jackknife import Scale
from components.shared.stats.metrics import Floats, Integers, Weights

Metric = Callable[[Floats, Integers, int, Weights], Floats]


def accuracy(logits: Floats, labels: Integers, positive: int, weights: Weights = None) -> Floats:
    """Return the fraction of samples whose largest logit is that of their class."""
    del positive
    return metrics.weighted_mean(logits.argmax(axis=1) == labels, weights)


def mcc(logits: Floats, labels: Integers, positive: int, weights: Weights = None) -> Floats:
    """Return the Matthews correlation of "P(positive) > 1/2" with the positive class."""
    return metrics.mcc(labels == positive, class_log_odds(logits, positive) > 0, weights)


def auroc(logits: Floats, labels: Integers, positive: int, weights: Weights = None) -> Floats:
    """Return the area under the ROC curve of P(positive)."""
    return metrics.auroc(labels == positive, class_log_odds(logits, positive), weights)


def average_precision(
    logits: Floats, labels: Integers, positive: int, weights: Weights = None
) -> Floats:
    """Return the average precision of P(positive)."""
    return metrics.average_precision(labels == positive, class_log_odds(logits, positive), weights)


def nll(logits: Floats, labels: Integers, positive: int, weights: Weights = None) -> Floats:
    """Return the mean negative log-likelihood, in nats, over all classes."""
    del positive
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
    logits: Floats | np.ndarray, labels: Integers, positive: int
) -> dict[str, float]:
    """Return all metrics of logits (N, C) and labels (N,), by name.

    `positive` is the index of the class that margins refer to.
    """
    logits64 = np.asarray(logits, dtype=np.float64)
    return {
        name: float(metric(logits64, labels, positive, None)) for name, metric in METRICS.items()
    }

"""By which numbers on VAL_SELECT are epochs and models chosen? Larger is better for each but the
NLL.
"""

from collections.abc import Callable

import numpy as np

from components.shared.calibration.calibrator import class_log_odds
from components.shared.stats import metrics
from components.shared.stats.metrics import Floats, Integers, Weights

Metric = Callable[[Floats, Integers, int, Weights], Floats]


def accuracy(logits: Floats, labels: Integers, positive: int, weights: Weights = None) -> Floats:
    """Share of samples whose largest logit is that of their class."""
    del positive
    return metrics.weighted_mean(logits.argmax(axis=1) == labels, weights)


def mcc(logits: Floats, labels: Integers, positive: int, weights: Weights = None) -> Floats:
    """Matthews correlation of "P(positive) > 1/2" with the positive class."""
    return metrics.mcc(labels == positive, class_log_odds(logits, positive) > 0, weights)


def auroc(logits: Floats, labels: Integers, positive: int, weights: Weights = None) -> Floats:
    """Area under the ROC curve of P(positive)."""
    return metrics.auroc(labels == positive, class_log_odds(logits, positive), weights)


def average_precision(
    logits: Floats, labels: Integers, positive: int, weights: Weights = None
) -> Floats:
    """Average precision of P(positive)."""
    return metrics.average_precision(labels == positive, class_log_odds(logits, positive), weights)


def nll(logits: Floats, labels: Integers, positive: int, weights: Weights = None) -> Floats:
    """Mean negative log-likelihood (nats) over all classes."""
    del positive
    return metrics.nll_multiclass(labels, logits, weights)


METRICS: dict[str, Metric] = {
    "val_select/acc": accuracy,
    "val_select/mcc": mcc,
    "val_select/auroc": auroc,
    "val_select/ap": average_precision,
    "val_select/nll": nll,
}


def selection_metrics(
    logits: Floats | np.ndarray, labels: Integers, positive: int
) -> dict[str, float]:
    """All of METRICS from logits (N, C) and labels (N,); `positive` is the class that margins refer
    to.
    """
    wide = np.asarray(logits, dtype=np.float64)
    return {name: float(metric(wide, labels, positive, None)) for name, metric in METRICS.items()}

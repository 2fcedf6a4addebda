"""Metrics of K classes: of each class against the rest, and their means over the classes.

`truth` and `decision` are (N,) int64 numbers of classes, `probability` is (N, K); weights are those
of `metrics`, (N,) or (R, N). A mean ("macro") is over the classes that occur in `truth`. Where they
do, all values equal scikit-learn's.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from components.shared.stats.metrics import (
    Bools,
    Floats,
    Integers,
    Weights,
    multiplicities,
    ratio,
)

# A metric of a ranking: truth (N,) bool, scores (N,), weights.
Ranking = Callable[[Bools, Floats, Weights], Floats]


@dataclass(frozen=True)
class ClassCounts:
    """Weighted counts by class, each (K,) or (R, K).

    correct: samples of the class that are decided to be of it. true: samples of the class. decided:
    samples that are decided to be of the class.
    """

    correct: Floats
    true: Floats
    decided: Floats

    @property
    def recall(self) -> Floats:
        """Fraction of the class's samples that are decided correctly; nan where it has none."""
        return ratio(self.correct, self.true, np.nan)

    @property
    def precision(self) -> Floats:
        """Fraction of correct decisions for the class; 0 where there is no such decision."""
        return ratio(self.correct, self.decided, 0.0)

    @property
    def f1(self) -> Floats:
        """Harmonic mean of precision and recall; 0 where neither exists."""
        return ratio(2 * self.correct, self.true + self.decided, 0.0)

    def macro(self, values: Floats) -> Floats:
        """Return the mean of values (..., K) over the classes that have samples."""
        present = self.true > 0
        summed: Floats = np.where(present, values, 0.0).sum(axis=-1)
        return ratio(summed, present.sum(axis=-1).astype(np.float64), np.nan)


def confusion_matrix(truth: Integers, decision: Integers, n_classes: int) -> Integers:
    """Return (K, K) int64 counts of samples, a row for each true class."""
    cells = np.bincount(truth * n_classes + decision, minlength=n_classes**2)
    return cells.reshape(n_classes, n_classes).astype(np.int64)


def class_counts(
    truth: Integers, decision: Integers, n_classes: int, weights: Weights = None
) -> ClassCounts:
    """Count the samples of each class, the decisions for it, and the correct ones."""
    w = multiplicities(len(truth), weights)
    is_true, is_decided = np.eye(n_classes)[truth], np.eye(n_classes)[decision]
    return ClassCounts(w @ (is_true * is_decided), w @ is_true, w @ is_decided)


def macro_precision(
    truth: Integers, decision: Integers, n_classes: int, weights: Weights = None
) -> Floats:
    """Return the mean precision of the classes, in [0, 1]."""
    counts = class_counts(truth, decision, n_classes, weights)
    return counts.macro(counts.precision)


def macro_recall(
    truth: Integers, decision: Integers, n_classes: int, weights: Weights = None
) -> Floats:
    """Return the mean recall of the classes (balanced accuracy), in [0, 1]."""
    counts = class_counts(truth, decision, n_classes, weights)
    return counts.macro(counts.recall)


def macro_f1(
    truth: Integers, decision: Integers, n_classes: int, weights: Weights = None
) -> Floats:
    """Return the mean F1 score of the classes, in [0, 1]."""
    counts = class_counts(truth, decision, n_classes, weights)
    return counts.macro(counts.f1)


def mcc(truth: Integers, decision: Integers, n_classes: int, weights: Weights = None) -> Floats:
    """Return the Matthews correlation of K classes, in [-1, 1].

    It is 0 where all samples or all decisions are of one class (Gorodkin, Computational Biology and
    Chemistry 2004).
    """
    counts = class_counts(truth, decision, n_classes, weights)
    n = counts.true.sum(axis=-1)
    covariance = counts.correct.sum(axis=-1) * n - (counts.true * counts.decided).sum(axis=-1)
    spread = (n**2 - (counts.true**2).sum(axis=-1)) * (n**2 - (counts.decided**2).sum(axis=-1))
    return ratio(covariance, np.sqrt(np.maximum(spread, 0.0)), 0.0)


def macro_ranking(
    ranking: Ranking, truth: Integers, probability: Floats, weights: Weights = None
) -> Floats:
    """Return the mean of a ranking's metric, each class against the rest by its probability.

    The result is nan where `truth` has fewer than two classes.

    Args:
        ranking: `metrics.auroc` or `metrics.average_precision`.
        truth: (N,) int64.
        probability: (N, K) float64.
        weights: as in `metrics`.
    """
    classes = np.unique(truth).tolist()
    found = np.stack([ranking(truth == k, probability[:, k], weights) for k in classes])
    defined = np.isfinite(found)
    summed: Floats = np.where(defined, found, 0.0).sum(axis=0)
    mean = ratio(summed, defined.sum(axis=0).astype(np.float64), np.nan)
    return np.where(defined.sum(axis=0) > 1, mean, np.nan)[()]

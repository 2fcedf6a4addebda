"""Calibrators without a formula: isotonic regression and histogram binning.

Zadrozny and Elkan, KDD 2002 (isotonic) and ICML 2001 (histogram), on Platt's smoothed targets, so
that samples without an error do not give probabilities of 0 and 1. A step gives scores equal ranks,
so both may reduce AUROC. For more than two classes each class is fitted against the others, and the
results are normalised.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np

from components.shared.calibration.calibrator import (
    EPSILON,
    Calibrator,
    LogitArray,
    checked,
    class_log_odds,
)
from components.shared.calibration.newton import one_class_targets
from components.shared.stats.calibration_error import equal_width
from components.shared.stats.metrics import Floats, Integers, sigmoid

N_BINS = 15


@dataclass(frozen=True)
class Isotonic(Calibrator):
    """Isotonic regression on log-odds, linear between its knots.

    knots, values: one row for class 1 of two classes, else one row per class.
    """

    NAME: ClassVar[str] = "isotonic"
    knots: tuple[tuple[float, ...], ...]
    values: tuple[tuple[float, ...], ...]

    @classmethod
    def fit(cls, logits: LogitArray, labels: Integers) -> Self:
        """Fit scikit-learn's isotonic regression for class 1, or for each of more classes."""
        from sklearn.isotonic import IsotonicRegression

        logits64, truth = checked(logits, labels)
        knots, values = [], []

        for k in [1] if logits64.shape[1] == 2 else range(logits64.shape[1]):
            fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(
                class_log_odds(logits64, k), one_class_targets(truth == k)
            )
            knots.append(tuple(fitted.X_thresholds_.tolist()))
            values.append(tuple(fitted.y_thresholds_.tolist()))

        return cls(tuple(knots), tuple(values))

    @classmethod
    def field_problems(cls, document: dict[str, Any]) -> list[str]:
        """Return what is wrong with a document; knots ascend, values are probabilities."""
        problems = super().field_problems(document)
        if not problems:
            if not all(row == sorted(row) for row in document["knots"]):
                problems.append("knots must ascend")
            problems += _probability_problems("values", document["values"])
        return problems

    def log_probabilities(self, logits: LogitArray) -> Floats:
        """Return the logarithms of the interpolated values."""
        functions = [
            partial(_interpolated, knots, values)
            for knots, values in zip(self.knots, self.values, strict=True)
        ]
        return _log_probabilities_of(logits, functions)

    def n_classes(self) -> int | None:
        """Return 2 for one row, else the number of rows."""
        return max(2, len(self.knots))


@dataclass(frozen=True)
class Histogram(Calibrator):
    """Mean target of the class in the sample's equal-width bin of probability.

    frequencies: (n_bins,) for class 1 of two classes, else one row per class; an empty bin has its
    middle.
    """

    NAME: ClassVar[str] = "histogram"
    frequencies: tuple[tuple[float, ...], ...]

    @classmethod
    def fit(cls, logits: LogitArray, labels: Integers) -> Self:
        """Fit 15 bins, as many as the calibration errors use."""
        return cls.fit_bins(logits, labels, N_BINS)

    @classmethod
    def fit_bins(cls, logits: LogitArray, labels: Integers, n_bins: int) -> Self:
        """Fit frequencies in `n_bins` bins (lo, hi]."""
        logits64, truth = checked(logits, labels)
        middle = (np.arange(n_bins) + 0.5) / n_bins
        rows = []

        for k in [1] if logits64.shape[1] == 2 else range(logits64.shape[1]):
            bins = equal_width(sigmoid(class_log_odds(logits64, k)), n_bins)
            counts = np.bincount(bins, minlength=n_bins)
            hits = np.bincount(bins, weights=one_class_targets(truth == k), minlength=n_bins)
            frequency = np.where(counts > 0, hits / np.maximum(counts, 1), middle)
            rows.append(tuple(frequency.tolist()))

        return cls(tuple(rows))

    @classmethod
    def field_problems(cls, document: dict[str, Any]) -> list[str]:
        """Return what is wrong with a document; frequencies are probabilities."""
        problems = super().field_problems(document)
        return problems or _probability_problems("frequencies", document["frequencies"])

    def log_probabilities(self, logits: LogitArray) -> Floats:
        """Return the logarithms of the bins' frequencies."""
        functions = [partial(_looked_up, np.array(row)) for row in self.frequencies]
        return _log_probabilities_of(logits, functions)

    def n_classes(self) -> int | None:
        """Return 2 for one row, else the number of rows."""
        return max(2, len(self.frequencies))


def _interpolated(knots: tuple[float, ...], values: tuple[float, ...], margin: Floats) -> Floats:
    return np.interp(margin, knots, values)


def _looked_up(frequencies: Floats, margin: Floats) -> Floats:
    return np.asarray(frequencies[equal_width(sigmoid(margin), len(frequencies))])


def _log_probabilities_of(
    logits: LogitArray, functions: Sequence[Callable[[Floats], Floats]]
) -> Floats:
    """Return (N, C) log-probabilities from functions P(class | log-odds).

    There is one function, of class 1, for two classes, and one per class for more.
    """
    logits64 = np.asarray(logits, dtype=np.float64)
    if len(functions) == 1:
        positive = functions[0](class_log_odds(logits64, 1))
        probabilities = np.column_stack([1 - positive, positive])
    else:
        probabilities = np.column_stack(
            [f(class_log_odds(logits64, k)) for k, f in enumerate(functions)]
        )

    clipped = np.clip(probabilities, EPSILON, 1 - EPSILON)

    return np.asarray(np.log(clipped / clipped.sum(axis=1, keepdims=True)))


def _probability_problems(name: str, rows: list[list[float]]) -> list[str]:
    """Return a line where a number of the rows is no probability."""
    outside = [value for row in rows for value in row if not 0 <= value <= 1]
    return [f"{name} has {outside[0]}, which is not in [0, 1]"] if outside else []

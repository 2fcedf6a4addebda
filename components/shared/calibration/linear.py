"""Calibrators that are linear in logits: temperature, Platt and vector scaling.

The weights of a linear head can hold them. Guo et al., "On calibration of modern neural networks",
ICML 2017 (temperature, vector); Platt, 1999. For two classes vector scaling and matrix scaling are
Platt scaling.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from components.shared.calibration.calibrator import Calibrator, LogitArray, checked, class_log_odds
from components.shared.calibration.newton import (
    SoftmaxProblem,
    logistic_fit,
    one_class_targets,
    softmax_fit,
)
from components.shared.contracts.errors import DataError
from components.shared.stats.metrics import Bools, Floats, Integers, log_softmax, softmax

# Temperatures beyond e^-8 and e^8 make every probability 0 or 1, or all equal.
_LOG_TEMPERATURE_RANGE = 8.0
_LEAST_TEMPERATURE = 1e-100  # of a document: logits divided by less leave a double
# Standard deviation of the prior of log T: of temperatures, 95 % lie between 1 / 2.7 and 2.7.
_PRIOR_DEVIATION = 0.5


@dataclass(frozen=True)
class Temperature(Calibrator):
    """The map softmax(logits / temperature)."""

    NAME: ClassVar[str] = "temperature"
    temperature: float

    @classmethod
    def fit(cls, logits: LogitArray, labels: Integers) -> Self:
        """Minimise the summed NLL plus log(T)^2 / (2 * 0.5^2), to 1e-12 in log T.

        The penalty is a prior of log T, N(0, 0.5^2). Without it samples that contain no error have
        their optimum at T = 0, which turns every later error into an infinite loss; against some
        hundred samples that do determine the temperature it weighs nothing.

        Raises:
            DataError: the optimum is beyond e^-8 to e^8.
        """
        from scipy.optimize import brentq

        logits64, truth = checked(logits, labels)
        chosen = logits64[np.arange(len(truth)), truth]

        def slope(log_temperature: float) -> float:
            """Return the derivative by log T; it has one root, for the loss is convex in 1 / T."""
            inverse = np.exp(-log_temperature)
            expected = (softmax(logits64 * inverse) * logits64).sum(axis=1)
            prior = log_temperature / _PRIOR_DEVIATION**2
            return float(prior - inverse * (expected - chosen).sum())

        low, high = -_LOG_TEMPERATURE_RANGE, _LOG_TEMPERATURE_RANGE
        if slope(low) >= 0 or slope(high) <= 0:
            raise DataError(
                f"the best temperature lies beyond e^-{high:g} to e^{high:g}; the logits, up to"
                f" {np.abs(logits64).max():.3g}, are no log-odds of these classes"
            )

        return cls(float(np.exp(brentq(slope, low, high, xtol=1e-13))))

    def log_probabilities(self, logits: LogitArray) -> Floats:
        """Return log softmax(logits / temperature)."""
        return log_softmax(np.asarray(logits, dtype=np.float64) / self.temperature)

    def n_classes(self) -> int | None:
        """Return None: a temperature serves any number of classes."""
        return None

    def affine(self, n_classes: int) -> tuple[Floats, Floats]:
        """Return the scale 1 / temperature and no offset."""
        return np.full(n_classes, 1 / self.temperature), np.zeros(n_classes)

    @classmethod
    def field_problems(cls, document: dict[str, Any]) -> list[str]:
        """Return what is wrong with a document; the temperature is one positive number."""
        problems = super().field_problems(document)
        if not problems and document["temperature"] < _LEAST_TEMPERATURE:
            problems.append(f"temperature={document['temperature']} must be a number > 0")
        return problems


def log_probabilities_of_margins(margins: Sequence[Floats]) -> Floats:
    """Return (N, C) log-probabilities of calibrated log-odds, (N,) each.

    One margin is that of class 1 against class 0; several are those of each class against the
    others, whose sigmoids are normalised.
    """
    if len(margins) == 1:
        return log_softmax(np.column_stack([np.zeros(len(margins[0])), margins[0]]))
    return log_softmax(np.column_stack([-np.logaddexp(0.0, -margin) for margin in margins]))


@dataclass(frozen=True)
class Platt(Calibrator):
    """The map sigmoid(slope * log-odds + intercept), fitted to Platt's smoothed targets.

    Two classes have one slope and intercept, of class 1; more have one pair for each class against
    the others, and the results are normalised.
    """

    NAME: ClassVar[str] = "platt"
    slope: tuple[float, ...]
    intercept: tuple[float, ...]

    @classmethod
    def fit(cls, logits: LogitArray, labels: Integers) -> Self:
        """Fit a logistic regression on the log-odds of class 1, or of each of more classes."""
        logits64, truth = checked(logits, labels)
        classes = [1] if logits64.shape[1] == 2 else range(logits64.shape[1])
        pairs = [_logistic(class_log_odds(logits64, k), truth == k) for k in classes]
        return cls(tuple(a for a, _ in pairs), tuple(b for _, b in pairs))

    def log_probabilities(self, logits: LogitArray) -> Floats:
        """Return the logarithms of the sigmoid's two results, or of the normalised sigmoids."""
        logits64 = np.asarray(logits, dtype=np.float64)
        classes = [1] if len(self.slope) == 1 else range(len(self.slope))
        margins = [
            a * class_log_odds(logits64, k) + b
            for k, a, b in zip(classes, self.slope, self.intercept, strict=True)
        ]
        return log_probabilities_of_margins(margins)

    def n_classes(self) -> int | None:
        """Return 2 for one slope, else the number of slopes."""
        return max(2, len(self.slope))

    def affine(self, n_classes: int) -> tuple[Floats, Floats] | None:
        """Return, for two classes, the slope for both logits and the intercept for class 1."""
        if n_classes != 2:
            return None
        return np.full(2, self.slope[0]), np.array([0.0, self.intercept[0]])


@dataclass(frozen=True)
class VectorScaling(Calibrator):
    """The map softmax(scale * logits + offset), with a scale and an offset per class."""

    NAME: ClassVar[str] = "vector"
    scale: tuple[float, ...]
    offset: tuple[float, ...]

    @classmethod
    def fit(cls, logits: LogitArray, labels: Integers) -> Self:
        """Fit to smoothed targets; the offset of class 0 is 0, since only differences count.

        Two classes share their scale, so that the result is a function of the log-odds.
        """
        logits64, truth = checked(logits, labels)
        count = logits64.shape[1]
        if count == 2:
            platt = Platt.fit(logits64, truth)
            return cls(2 * platt.slope, (0.0, *platt.intercept))

        free = np.eye(count, count + 1, dtype=bool)
        free[1:, -1] = True
        found = softmax_fit(SoftmaxProblem(logits64, truth, free, np.zeros(free.shape)))

        return cls(tuple(np.diag(found).tolist()), tuple(found[:, -1].tolist()))

    def log_probabilities(self, logits: LogitArray) -> Floats:
        """Return log softmax(scale * logits + offset)."""
        return log_softmax(
            np.asarray(logits, dtype=np.float64) * self.scale + np.asarray(self.offset)
        )

    def n_classes(self) -> int | None:
        """Return the number of scales, one per class."""
        return len(self.scale)

    def affine(self, n_classes: int) -> tuple[Floats, Floats]:
        """Return scale and offset."""
        del n_classes
        return np.array(self.scale), np.array(self.offset)


def _logistic(margin: Floats, truth: Bools) -> tuple[float, float]:
    """Return (slope, intercept) of the logistic regression of truth on one feature."""
    targets = one_class_targets(truth)
    slope, intercept = logistic_fit(margin[:, None], targets)[0].tolist()
    return slope, intercept

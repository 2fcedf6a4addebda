"""Calibrators that are linear in log-probabilities: beta and Dirichlet calibration.

Kull, Silva Filho, Flach, "Beta calibration", AISTATS 2017; Kull et al., "Beyond temperature
scaling: obtaining well-calibrated multiclass probabilities with Dirichlet calibration", NeurIPS
2019 (ODIR: equation 9). The package betacal serves two classes, and dirichletcal does not build.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from components.shared.calibration.calibrator import Calibrator, LogitArray, checked, nested_tuple
from components.shared.calibration.folds import group_folds
from components.shared.calibration.linear import log_probabilities_of_margins
from components.shared.calibration.newton import (
    SoftmaxProblem,
    logistic_fit,
    one_class_targets,
    softmax_fit,
)
from components.shared.contracts.errors import DataError
from components.shared.stats.bootstrap import membership
from components.shared.stats.metrics import Bools, Floats, Integers, log_softmax, nll_multiclass

# Strengths tried by cross-validation: from nearly none to nearly diagonal, without intercepts.
STRENGTHS = (1e-2, 1e-1, 1.0, 10.0)
_MAX_VALIDATED = 5000  # samples on which strengths are compared


@dataclass(frozen=True)
class Beta(Calibrator):
    """The map sigmoid(a ln p - b ln(1 - p) + c) with a, b >= 0.

    For more than two classes each class is mapped against the others, and the results are
    normalised: a, b and c have one entry per class.
    """

    NAME: ClassVar[str] = "beta"
    a: tuple[float, ...]
    b: tuple[float, ...]
    c: tuple[float, ...]

    @classmethod
    def fit(cls, logits: LogitArray, labels: Integers) -> Self:
        """Fit a logistic regression on (ln p, -ln(1 - p)).

        A coefficient that would be negative is 0, and the others are fitted without it.
        """
        logits64, truth = checked(logits, labels)
        classes = [1] if logits64.shape[1] == 2 else range(logits64.shape[1])
        fitted = [_fit_beta(_log_pair(logits64, k), truth == k) for k in classes]
        a, b, c = zip(*fitted, strict=True)
        return cls(a, b, c)

    def log_probabilities(self, logits: LogitArray) -> Floats:
        """Return the logarithms of the sigmoid's two results, or of the normalised sigmoids."""
        logits64 = np.asarray(logits, dtype=np.float64)
        classes = [1] if len(self.a) == 1 else range(len(self.a))
        margins = [
            _log_pair(logits64, k) @ np.array([a, b]) + c
            for k, a, b, c in zip(classes, self.a, self.b, self.c, strict=True)
        ]
        return log_probabilities_of_margins(margins)

    def n_classes(self) -> int | None:
        """Return 2 for one triple, else the number of triples."""
        return max(2, len(self.a))


@dataclass(frozen=True)
class Dirichlet(Calibrator):
    """The map softmax(weights ln p + intercept), with the ODIR penalty.

    weights: (C, C), intercept: (C,). The penalty holds off-diagonal weights and intercepts small;
    `off_diagonal` and `intercept_penalty` are its strengths.
    """

    NAME: ClassVar[str] = "dirichlet"
    weights: tuple[tuple[float, ...], ...]
    intercept: tuple[float, ...]
    off_diagonal: float
    intercept_penalty: float

    @classmethod
    def fit(cls, logits: LogitArray, labels: Integers, groups: Sequence[str] | None = None) -> Self:
        """Fit with strengths chosen by cross-validated NLL over whole groups, one after the other.

        At most 5,000 of the samples choose the strengths. A penalty has the weight of so many
        samples, so it is scaled down when more are fitted. Samples of one group have nothing to
        validate on: they are fitted with the greatest strengths.

        Args:
            logits: (N, C), finite.
            labels: (N,) int64.
            groups: (N,) group name of each sample; every sample is its own group without it.
        """
        logits64, truth = checked(logits, labels)
        member = membership(groups, len(truth)).astype(str)
        rows = np.linspace(0, len(truth) - 1, min(len(truth), _MAX_VALIDATED)).astype(np.int64)
        if len(np.unique(truth[rows])) < logits64.shape[1]:
            rows = np.arange(len(truth))  # the thinned rows lack a class

        few, few_truth = logits64[rows], truth[rows]
        try:
            folds = group_folds(few_truth, member[rows].tolist(), seed=0)
        except DataError:
            return cls.fit_penalised(logits64, truth, STRENGTHS[-1], STRENGTHS[-1])

        def validated_nll(off_diagonal: float, intercept: float) -> float:
            return cls._validated_nll(few, few_truth, folds, off_diagonal, intercept)

        off_diagonal = min(STRENGTHS, key=lambda x: validated_nll(x, x))
        intercept = min(STRENGTHS, key=lambda x: validated_nll(off_diagonal, x))
        scale = len(rows) / len(truth)

        return cls.fit_penalised(logits64, truth, off_diagonal * scale, intercept * scale)

    @classmethod
    def fit_penalised(
        cls, logits64: Floats, truth: Integers, off_diagonal: float, intercept: float
    ) -> Self:
        """Minimise the loss of smoothed targets plus the ODIR penalty of these strengths.

        The penalty is off_diagonal / (C (C - 1)) times the sum of squared off-diagonal weights plus
        intercept / C times the sum of squared intercepts.

        Args:
            logits64: (N, C) float64, as `checked` returns them.
            truth: (N,) int64, as `checked` returns them.
            off_diagonal: strength for the weights, not negative.
            intercept: strength for the intercepts, not negative.
        """
        count = logits64.shape[1]
        free = np.ones((count, count + 1), dtype=bool)
        penalty = np.full(free.shape, 2 * off_diagonal / (count * (count - 1)))
        np.fill_diagonal(penalty, 0.0)
        penalty[:, -1] = 2 * intercept / count
        found = softmax_fit(SoftmaxProblem(log_softmax(logits64), truth, free, penalty))

        return cls(nested_tuple(found[:, :-1]), nested_tuple(found[:, -1]), off_diagonal, intercept)

    @classmethod
    def _validated_nll(
        cls,
        logits64: Floats,
        truth: Integers,
        folds: Integers,
        off_diagonal: float,
        intercept: float,
    ) -> float:
        """Return the mean NLL of each sample after a fit on the other folds."""
        total = 0.0
        for fold in np.unique(folds):
            inside, outside = folds != fold, folds == fold
            fitted = cls.fit_penalised(logits64[inside], truth[inside], off_diagonal, intercept)
            log_probabilities = fitted.log_probabilities(logits64[outside])
            total += float(nll_multiclass(truth[outside], log_probabilities)) * outside.sum()

        return total / len(truth)

    def log_probabilities(self, logits: LogitArray) -> Floats:
        """Return log softmax(weights ln p + intercept)."""
        mapped = log_softmax(logits) @ np.array(self.weights).T + np.array(self.intercept)
        return log_softmax(mapped)

    def n_classes(self) -> int | None:
        """Return the number of rows, one per class."""
        return len(self.intercept)


def _log_pair(logits64: Floats, k: int) -> Floats:
    """Return (N, 2): ln p and -ln(1 - p) of class k."""
    log_p = log_softmax(logits64)
    log_others = np.logaddexp.reduce(np.delete(log_p, k, axis=1), axis=1)
    return np.column_stack([log_p[:, k], -log_others])


def _fit_beta(features: Floats, truth: Bools) -> tuple[float, float, float]:
    """Return (a, b, c) of one class from features (N, 2), with a, b >= 0.

    The loss is convex, so the best fit with a, b >= 0 is the best of those with both coefficients,
    with either one, and with neither that have no negative coefficient.
    """
    targets = one_class_targets(truth)
    fits = []
    for columns in ([0, 1], [0], [1], []):
        found, loss = logistic_fit(features[:, columns], targets)
        if (found[:-1] >= 0).all():
            weights = np.zeros(3)
            weights[[*columns, 2]] = found
            fits.append((loss, weights))

    _, best = min(fits, key=lambda fit: fit[0])
    a, b, c = best.tolist()

    return a, b, c

"""Which calibrators are linear in log-probabilities? Beta and Dirichlet calibration.

Kull, Silva Filho, Flach, "Beta calibration", AISTATS 2017; Kull et al., "Beyond temperature
scaling: obtaining well-calibrated multiclass probabilities with Dirichlet calibration", NeurIPS
2019 (ODIR: eq. 9).
"""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from components.shared.calibration.calibrator import Calibrator, LogitArray, checked, nested_tuple
from components.shared.calibration.linear import of_sigmoids
from components.shared.calibration.newton import Problem, logistic_fit, softmax_fit
from components.shared.stats.metrics import Floats, Integers, log_softmax, nll_multiclass

# Strengths tried by cross-validation: from hardly any to nearly diagonal, without intercepts.
STRENGTHS = (1e-2, 1e-1, 1.0, 10.0)
_N_FOLDS = 5
_MAX_VALIDATED = 5000


@dataclass(frozen=True)
class Beta(Calibrator):
    """sigmoid(a ln p - b ln(1 - p) + c) with a, b >= 0. More than two classes: each against the
    others, normalised.
    """

    NAME: ClassVar[str] = "beta"
    a: tuple[float, ...]
    b: tuple[float, ...]
    c: tuple[float, ...]

    @classmethod
    def fit(cls, logits: LogitArray, labels: Integers) -> Self:
        """Logistic regression on (ln p, -ln(1 - p)); a negative coefficient is set to 0 and the
        others fitted again.
        """
        logits64, truth = checked(logits, labels)
        classes = [1] if logits64.shape[1] == 2 else range(logits64.shape[1])
        rows = [_beta(_log_pair(logits64, k), truth == k) for k in classes]
        return cls(*(tuple(column) for column in zip(*rows, strict=True)))

    def log_probabilities(self, logits: LogitArray) -> Floats:
        """Two classes: of the one sigmoid. More: of the normalised sigmoids."""
        logits64 = np.asarray(logits, dtype=np.float64)
        classes = [1] if len(self.a) == 1 else range(len(self.a))
        rows = zip(classes, self.a, self.b, self.c, strict=True)
        margins = [_log_pair(logits64, k) @ np.array([a, b]) + c for k, a, b, c in rows]
        return of_sigmoids(margins)

    def n_classes(self) -> int | None:
        """Two for one triple."""
        return max(2, len(self.a))


@dataclass(frozen=True)
class Dirichlet(Calibrator):
    """softmax(weights ln p + intercept), off-diagonal weights and intercepts penalised (ODIR)."""

    NAME: ClassVar[str] = "dirichlet"
    weights: tuple[tuple[float, ...], ...]
    intercept: tuple[float, ...]
    off_diagonal: float
    intercept_penalty: float

    @classmethod
    def fit(cls, logits: LogitArray, labels: Integers) -> Self:
        """Both strengths chosen by cross-validated NLL, one after the other.

        That uses at most 5,000 of the samples; a penalty is a prior of so many samples' worth, so
        it is scaled down for more.
        """
        logits64, truth = checked(logits, labels)
        rows = np.linspace(0, len(truth) - 1, min(len(truth), _MAX_VALIDATED)).astype(np.int64)
        if len(np.unique(truth[rows])) < logits64.shape[1]:
            rows = np.arange(len(truth))
        few, few_truth = logits64[rows], truth[rows]
        best = min(
            STRENGTHS, key=lambda strength: cls._validated_nll(few, few_truth, strength, strength)
        )
        other = min(
            STRENGTHS, key=lambda strength: cls._validated_nll(few, few_truth, best, strength)
        )
        scale = len(rows) / len(truth)
        return cls._fit(logits64, truth, best * scale, other * scale)

    @classmethod
    def fit_regularised(
        cls, logits: LogitArray, labels: Integers, off_diagonal: float, intercept: float
    ) -> Self:
        """Minimal NLL + off_diagonal / (C (C - 1)) * sum of squared off-diagonal weights +
        intercept / C * sum of squared intercepts."""
        logits64, truth = checked(logits, labels)
        return cls._fit(logits64, truth, off_diagonal, intercept)

    @classmethod
    def _fit(cls, logits64: Floats, truth: Integers, off_diagonal: float, intercept: float) -> Self:
        count = logits64.shape[1]
        start = np.eye(count, count + 1)
        penalty = np.full_like(start, 2 * off_diagonal / (count * (count - 1)))
        np.fill_diagonal(penalty, 0.0)
        penalty[:, -1] = 2 * intercept / count
        features = np.column_stack([log_softmax(logits64), np.ones(len(logits64))])
        found = softmax_fit(Problem(features, truth, np.ones_like(start, bool), penalty, start))
        return cls(nested_tuple(found[:, :-1]), nested_tuple(found[:, -1]), off_diagonal, intercept)

    @classmethod
    def _validated_nll(
        cls, logits64: Floats, truth: Integers, off_diagonal: float, intercept: float
    ) -> float:
        """Mean held-out NLL over folds of every n-th sample within its class, so that all folds
        have all classes.
        """
        fold = np.empty(len(truth), dtype=np.int64)
        for k in range(logits64.shape[1]):
            members = np.flatnonzero(truth == k)
            fold[members] = np.arange(len(members)) % _N_FOLDS
        losses = []
        for held_out in range(min(_N_FOLDS, int(fold.max()) + 1)):
            inside, outside = fold != held_out, fold == held_out
            if not inside.any():
                inside = outside
            fitted = cls._fit(logits64[inside], truth[inside], off_diagonal, intercept)
            losses.append(
                nll_multiclass(truth[outside], fitted.log_probabilities(logits64[outside]))
                * outside.sum()
            )
        return float(np.sum(losses) / len(truth))

    def log_probabilities(self, logits: LogitArray) -> Floats:
        """log softmax(weights ln p + intercept)."""
        return log_softmax(
            log_softmax(logits) @ np.array(self.weights).T + np.array(self.intercept)
        )

    def n_classes(self) -> int | None:
        """One row per class."""
        return len(self.intercept)


def _log_pair(logits64: Floats, k: int) -> Floats:
    """(N, 2): ln p and -ln(1 - p) of class k."""
    log_p = log_softmax(logits64)
    return np.column_stack([log_p[:, k], -np.logaddexp.reduce(np.delete(log_p, k, axis=1), axis=1)])


def _beta(features: Floats, truth: np.ndarray) -> tuple[float, float, float]:
    with_one, kept = np.column_stack([features, np.ones(len(features))]), np.ones(3, dtype=bool)
    weights = np.zeros(3)
    for _ in range(2):
        weights[:] = 0
        weights[kept] = logistic_fit(with_one[:, kept], truth, np.array([1.0, 1.0, 0.0])[kept])
        negative = weights[:2] < 0
        if not negative.any():
            break
        kept[:2] &= ~negative
    a, b, c = np.r_[np.maximum(weights[:2], 0), weights[2]].tolist()
    return a, b, c

"""Which linear softmax model fits labels best? Damped Newton to machine precision, for a few hundred parameters.

The loss is convex, but flat along one direction (the same vector added to every class), which a vanishing damping
pins down. First-order methods stop short of the optimum here: published comparisons of calibrators differ in the third
digit for that reason alone.
"""

from dataclasses import dataclass

import numpy as np

from components.shared.evaluation.metrics import Bools, Floats, Integers, log_softmax

_GRADIENT_TOLERANCE = 1e-11
_MAX_ITERATIONS = 100
# Relative to the mean curvature: far below what any digit of a fit shows, enough to make the flat direction regular.
_DAMPING = 1e-9


@dataclass(frozen=True)
class Problem:
    """Minimise mean NLL of softmax(W [x; 1]) plus 0.5 * sum(penalty * (W - target)^2) over the free entries of W.

    features: (N, F + 1) float64, the last column 1; labels: (N,) int64; free (K, F + 1) bool: entries that are fitted,
    the others stay at `start`; penalty, target, start: (K, F + 1) float64.
    """

    features: Floats
    labels: Integers
    free: Bools
    penalty: Floats
    target: Floats
    start: Floats


def minimise(problem: Problem) -> Floats:
    """(K, F + 1) float64: the optimal W. On separable labels, where no optimum exists, the slope stops growing once
    the gradient is below 1e-11."""
    weights = problem.start.copy()
    for _ in range(_MAX_ITERATIONS):
        gradient = _gradient(problem, weights)
        if np.abs(gradient).max() < _GRADIENT_TOLERANCE:
            break
        moved = _moved(problem, weights, gradient, _newton_step(problem, weights, gradient))
        if moved is None:
            break
        weights = moved
    return weights


def _moved(problem: Problem, weights: Floats, gradient: Floats, step: Floats) -> Floats | None:
    """Weights after the first of the steps 1, 1/2, 1/4, ... that keeps Armijo's share of the promised decrease.

    Near the optimum rounding hides the decrease of the loss, but not yet that of the gradient.
    """
    value, slope = _value(problem, weights), float(gradient @ step)
    for halvings in range(30):
        size = 0.5**halvings
        trial = weights.copy()
        trial[problem.free] += size * step
        decrease = value - _value(problem, trial)
        if decrease > 0 and decrease >= -1e-4 * size * slope:
            return trial
        if size == 1 and np.abs(_gradient(problem, trial)).max() < 0.5 * np.abs(gradient).max() and decrease > -1e-12:
            return trial
    return None


def _value(problem: Problem, weights: Floats) -> float:
    chosen = log_softmax(problem.features @ weights.T)[np.arange(len(problem.labels)), problem.labels]
    return float(-chosen.mean() + 0.5 * (problem.penalty * (weights - problem.target) ** 2).sum())


def _gradient(problem: Problem, weights: Floats) -> Floats:
    residual = np.exp(log_softmax(problem.features @ weights.T))
    residual[np.arange(len(problem.labels)), problem.labels] -= 1
    full = residual.T @ problem.features / len(problem.labels) + problem.penalty * (weights - problem.target)
    return np.asarray(full[problem.free])


def _newton_step(problem: Problem, weights: Floats, gradient: Floats) -> Floats:
    features, free = problem.features, problem.free.ravel()
    probabilities = np.exp(log_softmax(features @ weights.T))
    n_samples, n_classes = probabilities.shape
    width = features.shape[1]
    # Sum over samples of (diag(p) - p p') kron (x x'), as one product for the second part and blocks for the first.
    outer = (probabilities[:, :, None] * features[:, None, :]).reshape(n_samples, n_classes * width)
    hessian = -(outer.T @ outer)
    for k in range(n_classes):
        block = slice(k * width, (k + 1) * width)
        hessian[block, block] += (features * probabilities[:, k : k + 1]).T @ features
    hessian = hessian / n_samples + np.diag(problem.penalty.ravel())
    hessian = hessian[np.ix_(free, free)]
    damping = _DAMPING * max(float(np.trace(hessian)) / len(hessian), np.finfo(np.float64).tiny)
    return np.asarray(np.linalg.solve(hessian + damping * np.eye(len(hessian)), -gradient))

"""Which linear logistic or softmax model fits labels best? Damped Newton to machine precision, for
a few hundred parameters.

The losses are convex, the softmax one flat along one direction (the same vector added to every
class), which a vanishing damping pins down. First-order methods stop short of the optimum here:
published comparisons of calibrators differ in the third digit for that reason alone. On separable
labels, where no optimum exists, the slope stops growing once the gradient is below 1e-11.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from components.shared.stats.metrics import Bools, Floats, Integers, log_softmax

_GRADIENT_TOLERANCE = 1e-11
_MAX_ITERATIONS = 100
# Relative to the mean curvature: far below what any digit of a fit shows, enough to make the flat
# direction regular.
_DAMPING = 1e-9

Value = Callable[[Floats], float]
Derivatives = Callable[[Floats], tuple[Floats, Floats]]


@dataclass(frozen=True)
class Problem:
    """Minimise mean NLL of softmax(W [x; 1]) plus 0.5 * sum(penalty * W^2) over the free entries of
    W.

    features: (N, F + 1) float64, the last column 1; labels: (N,) int64; free (K, F + 1) bool:
    entries that are fitted, the others stay at `start`; penalty, start: (K, F + 1) float64.
    """

    features: Floats
    labels: Integers
    free: Bools
    penalty: Floats
    start: Floats


def softmax_fit(problem: Problem) -> Floats:
    """(K, F + 1) float64: the optimal W."""

    def weights(parameters: Floats) -> Floats:
        whole = problem.start.copy()
        whole[problem.free] = parameters
        return whole

    def value(parameters: Floats) -> float:
        w = weights(parameters)
        chosen = log_softmax(problem.features @ w.T)[np.arange(len(problem.labels)), problem.labels]
        return float(-chosen.mean() + 0.5 * (problem.penalty * w**2).sum())

    def derivatives(parameters: Floats) -> tuple[Floats, Floats]:
        w, features, free = weights(parameters), problem.features, problem.free
        probabilities = np.exp(log_softmax(features @ w.T))
        hessian = _softmax_hessian(features, probabilities) + np.diag(problem.penalty.ravel())
        probabilities[np.arange(len(problem.labels)), problem.labels] -= 1
        gradient = probabilities.T @ features / len(features) + problem.penalty * w
        return gradient[free], hessian[np.ix_(free.ravel(), free.ravel())]

    return weights(_newton(value, derivatives, problem.start[problem.free]))


def logistic_fit(features: Floats, truth: Bools, start: Floats) -> Floats:
    """(F,) float64: weights of the logistic regression of truth (N,) on features (N, F), without
    penalty.
    """

    from scipy.special import expit

    def value(weights: Floats) -> float:
        margin = features @ weights
        # log(1 + e^x) without overflow; the same as logaddexp(0, x) in half its time.
        return float(
            (np.log1p(np.exp(-np.abs(margin))) + np.maximum(margin, 0)).mean()
            - margin @ truth / len(truth)
        )

    def derivatives(weights: Floats) -> tuple[Floats, Floats]:
        probability = expit(features @ weights)
        curvature = (probability * (1 - probability))[:, None] * features
        return features.T @ (probability - truth) / len(features), features.T @ curvature / len(
            features
        )

    return _newton(value, derivatives, start)


def _softmax_hessian(features: Floats, probabilities: Floats) -> Floats:
    """Mean over samples of (diag(p) - p p') kron (x x'), as one product for the second part, blocks
    for the first.
    """
    n_samples, n_classes = probabilities.shape
    width = features.shape[1]
    outer = (probabilities[:, :, None] * features[:, None, :]).reshape(n_samples, n_classes * width)
    hessian = -(outer.T @ outer)
    for k in range(n_classes):
        block = slice(k * width, (k + 1) * width)
        hessian[block, block] += (features * probabilities[:, k : k + 1]).T @ features
    return np.asarray(hessian / n_samples)


def _newton(value: Value, derivatives: Derivatives, start: Floats) -> Floats:
    parameters = start.astype(np.float64)
    loss = value(parameters)
    gradient, hessian = derivatives(parameters)
    for _ in range(_MAX_ITERATIONS):
        if np.abs(gradient).max() < _GRADIENT_TOLERANCE:
            break
        damping = _DAMPING * max(float(np.trace(hessian)) / len(hessian), np.finfo(np.float64).tiny)
        step = np.asarray(
            np.linalg.solve(hessian + damping * np.eye(len(hessian)), -gradient), dtype=np.float64
        )
        size, trial_loss = _step_size(value, parameters, loss, step, float(gradient @ step))
        trial_gradient, trial_hessian = derivatives(parameters + size * step)
        # Near the optimum rounding hides the decrease of the loss, but not yet that of the
        # gradient.
        if trial_loss >= loss and np.abs(trial_gradient).max() > 0.5 * np.abs(gradient).max():
            break
        parameters, loss, gradient, hessian = (
            parameters + size * step,
            trial_loss,
            trial_gradient,
            trial_hessian,
        )
    return parameters


def _step_size(
    value: Value, parameters: Floats, loss: float, step: Floats, slope: float
) -> tuple[float, float]:
    """The first of 1, 1/2, 1/4, ... that keeps Armijo's share of the promised decrease, up to
    rounding; its loss.
    """
    size, trial_loss = 1.0, value(parameters + step)
    while trial_loss > loss + 1e-4 * size * slope + 1e-14 * abs(loss) and size > 1e-9:
        size /= 2
        trial_loss = value(parameters + size * step)
    return size, trial_loss

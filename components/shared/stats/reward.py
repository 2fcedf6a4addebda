"""What would the deployment pay? The scoring contract of the NATIX StreetVision network.

An answer is scored by `(0.5 max(0, MCC of the last 100) + 0.5 accuracy of the last 10) ** 3`, the
decision being `numpy.round(P(Roadwork))`; abstaining pays nothing
(natix/validator/scoring/reward.py, contract of November 2025).
"""

import math

import numpy as np
import numpy.typing as npt

from components.shared.stats.metrics import (
    Bools,
    Floats,
    Weights,
    confusion,
    mcc,
    mcc_of_counts,
    ratio,
    total,
)

MCC_WINDOW, ACCURACY_WINDOW, EXPONENT = 100, 10, 3
NO_ANSWER = -1.0
# Class counts of 100 fair draws outside this range have a probability below 1e-11 together.
_POSITIVES = range(15, MCC_WINDOW - 14)
_BATCH = 512


def reward(truth: Bools, probabilities: Floats) -> float:
    """The validator's score, in [0, 1], after the last of a sequence of answers (N,), oldest first.

    No answer (-1), nan and probabilities outside [0, 1] earn 0. A missing answer leaves the
    windows; a value that rounds to neither 0 nor 1, or nan, stays and spoils every window that
    holds it (the metric is 0 there).
    """
    if not len(probabilities) or not 0 <= probabilities[-1] <= 1:
        return 0.0
    answered = probabilities != NO_ANSWER
    labels, decisions = truth[answered], np.round(probabilities[answered])
    matthews = max(0.0, _window_mcc(labels[-MCC_WINDOW:], decisions[-MCC_WINDOW:]))
    recent = decisions[-ACCURACY_WINDOW:]
    accuracy = (
        float((labels[-ACCURACY_WINDOW:] == recent).mean())
        if np.isin(recent, (0, 1)).all()
        else 0.0
    )
    return (0.5 * matthews + 0.5 * accuracy) ** EXPONENT


def expected_reward(truth: Bools, decision: Bools, weights: Weights = None) -> Floats:
    """Mean reward of decisions (N,) over sequences of 100 independent images, each positive with
    probability 1/2.

    nan where a class is absent. Weights as in `metrics`.
    """
    tn, fp, fn, tp = confusion(truth, decision, weights)
    return expected_reward_of_rates(ratio(tp, tp + fn, np.nan), ratio(tn, tn + fp, np.nan))


def expected_reward_of_rates(
    true_positive_rate: npt.ArrayLike, true_negative_rate: npt.ArrayLike
) -> Floats:
    """Mean reward at these rates (equal shapes) in the deployment's balanced stream; exact, without
    simulation.

    Given the 100 images' confusion counts, the correct ones among the last 10 are hypergeometric;
    the counts are products of binomials. Summing over all of them leaves no Monte-Carlo error.
    """
    rates = np.broadcast_arrays(
        np.asarray(true_positive_rate, float), np.asarray(true_negative_rate, float)
    )
    flat = np.stack([rate.ravel() for rate in rates])
    found = np.full(flat.shape[1], np.nan)
    exists = np.flatnonzero(np.isfinite(flat).all(axis=0))
    for start in range(0, len(exists), _BATCH):
        rows = exists[start : start + _BATCH]
        found[rows] = sum(_expected_given(positives, *flat[:, rows]) for positives in _POSITIVES)
    return found.reshape(rates[0].shape)[()]


def _expected_given(positives: int, tpr: Floats, tnr: Floats) -> Floats:
    """(R,) P(so many positives among 100) times the mean reward given it."""
    negatives = MCC_WINDOW - positives
    tp, tn = np.arange(positives + 1.0)[:, None], np.arange(negatives + 1.0)[None, :]
    matthews = np.maximum(0.0, mcc_of_counts(tn, negatives - tn, positives - tp, tp))
    paid = sum(
        math.comb(EXPONENT, k)
        * (0.5 * matthews) ** (EXPONENT - k)
        * (0.5 / ACCURACY_WINDOW) ** k
        * moment
        for k, moment in enumerate(_recent_moments((tp + tn).astype(np.int64)))
    )
    share: float = math.comb(MCC_WINDOW, positives) / 2**MCC_WINDOW
    return share * total((_binomial(positives, tpr) @ paid) * _binomial(negatives, tnr))


def _recent_moments(correct: npt.NDArray[np.int64]) -> list[Floats]:
    """Moments 0 to 3 of the number of correct answers among the last 10, given the number among all
    100.
    """
    # Factorial moments of the hypergeometric distribution: 10 (10 - 1) .. x c (c - 1) .. / (100
    # (100 - 1) ..).
    factorial = [np.ones(correct.shape)]
    for k in range(EXPONENT):
        step = (ACCURACY_WINDOW - k) * (correct - k) / (MCC_WINDOW - k)
        factorial.append(factorial[-1] * step)
    one, two, three = factorial[1:]
    return [factorial[0], one, two + one, three + 3 * two + one]


def _binomial(n: int, rate: Floats) -> Floats:
    """(R, n + 1) binomial probabilities."""
    k = np.arange(n + 1)
    ways = np.array([math.comb(n, int(j)) for j in k], dtype=np.float64)
    chances: Floats = ways * rate[:, None] ** k * (1 - rate[:, None]) ** (n - k)
    return chances


def _window_mcc(labels: Bools, decisions: Floats) -> float:
    return float(mcc(labels, decisions == 1)) if np.isin(decisions, (0, 1)).all() else 0.0

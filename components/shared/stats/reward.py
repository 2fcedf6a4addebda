"""Expected reward of decisions under the scoring contract of the NATIX StreetVision network.

The network scores an answer by `(0.5 max(0, MCC of the last 100) + 0.5 accuracy of the last 10) **
3`, where the decision is `numpy.round(P(Roadwork))` (natix/validator/scoring/reward.py, contract of
November 2025). The tests hold the score itself and compare its mean with the one computed here.
"""

import math

import numpy as np
import numpy.typing as npt

from components.shared.stats.metrics import (
    Bools,
    Floats,
    Weights,
    confusion,
    mcc_of_counts,
    ratio,
    total,
)

MCC_WINDOW, ACCURACY_WINDOW, EXPONENT = 100, 10, 3
# Class counts of 100 fair draws outside this range have a probability below 1e-11 together.
_POSITIVES = range(15, MCC_WINDOW - 14)
_BATCH = 512  # pairs of rates evaluated at once


def expected_reward(truth: Bools, decision: Bools, weights: Weights = None) -> Floats:
    """Return the mean reward of decisions (N,) over sequences of 100 independent images.

    Each image of a sequence is positive with probability 1/2. The result is nan where a class is
    absent from `truth`; weights as in `metrics`.
    """
    tn, fp, fn, tp = confusion(truth, decision, weights)
    return expected_reward_of_rates(ratio(tp, tp + fn, np.nan), ratio(tn, tn + fp, np.nan))


def expected_reward_of_rates(
    true_positive_rate: npt.ArrayLike, true_negative_rate: npt.ArrayLike
) -> Floats:
    """Return the mean reward at these rates (equal shapes) in the network's balanced stream.

    The result is exact. Given the confusion counts of 100 images, the number of correct answers
    among the last 10 is hypergeometric; the counts are products of binomials. Summing over all
    counts leaves no Monte-Carlo error.
    """
    rates = np.broadcast_arrays(
        np.asarray(true_positive_rate, float), np.asarray(true_negative_rate, float)
    )
    flat = np.stack([rate.ravel() for rate in rates])
    found = np.full(flat.shape[1], np.nan)
    defined = np.flatnonzero(np.isfinite(flat).all(axis=0))

    for start in range(0, len(defined), _BATCH):
        rows = defined[start : start + _BATCH]
        found[rows] = sum(_expected_given(positives, *flat[:, rows]) for positives in _POSITIVES)

    return found.reshape(rates[0].shape)[()]


def _expected_given(n_positive: int, tpr: Floats, tnr: Floats) -> Floats:
    """Return (R,) P(`n_positive` of 100 images are positive) times the mean reward given that."""
    n_negative = MCC_WINDOW - n_positive
    tp, tn = np.arange(n_positive + 1.0)[:, None], np.arange(n_negative + 1.0)[None, :]
    matthews = np.maximum(0.0, mcc_of_counts(tn, n_negative - tn, n_positive - tp, tp))

    # (0.5 MCC + 0.05 correct) ** 3, expanded in powers of the number of correct answers.
    reward = sum(
        math.comb(EXPONENT, k)
        * (0.5 * matthews) ** (EXPONENT - k)
        * (0.5 / ACCURACY_WINDOW) ** k
        * moment
        for k, moment in enumerate(_recent_moments((tp + tn).astype(np.int64)))
    )

    probability: float = math.comb(MCC_WINDOW, n_positive) / 2**MCC_WINDOW

    return probability * total((_binomial(n_positive, tpr) @ reward) * _binomial(n_negative, tnr))


def _recent_moments(correct: npt.NDArray[np.int64]) -> list[Floats]:
    """Return moments 0 to 3 of the correct answers among the last 10, given those among all 100.

    They follow from the factorial moments of the hypergeometric distribution,
    10 (10 - 1) .. x c (c - 1) .. / (100 (100 - 1) ..).
    """
    factorial = [np.ones(correct.shape)]
    for k in range(EXPONENT):
        step = (ACCURACY_WINDOW - k) * (correct - k) / (MCC_WINDOW - k)
        factorial.append(factorial[-1] * step)
    one, two, three = factorial[1:]
    return [factorial[0], one, two + one, three + 3 * two + one]


def _binomial(n: int, rate: Floats) -> Floats:
    """Return (R, n + 1) binomial probabilities of 0 to n successes."""
    k = np.arange(n + 1)
    ways = np.array([math.comb(n, int(j)) for j in k], dtype=np.float64)
    probabilities: Floats = ways * rate[:, None] ** k * (1 - rate[:, None]) ** (n - k)
    return probabilities

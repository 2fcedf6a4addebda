"""The confidence from which a policy of several classes answers, within an error rate.

Confidence is the calibrated log-odds of the most probable class. The policy answers from the least
confidence at which the error rate among the answered images of VAL_CALIB is at most `alpha`. That
is a choice on the samples it is measured on, without a guarantee; the policies `gate` and `scrc`
certify.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from components.shared.contracts.errors import InfeasibleError
from components.shared.policies.logits import Logits
from components.shared.policies.policy import Policy, softmax_policy
from components.shared.stats.metrics import Bools, Floats, Weights, multiplicities, ratio

# Rates that differ by less are equal.
_EQUAL = 1e-12


@dataclass(frozen=True)
class AnswerSweep:
    """All D rules "answer from this confidence on" for D distinct confidences, ascending.

    thresholds: (D,), the first of which answers all samples; coverage, error_rate: (D,), or (R, D)
    for (R, N) weights; the error rate is nan where no weight is answered.
    """

    thresholds: Floats
    coverage: Floats
    error_rate: Floats


def sweep_answers(
    confidence: Floats, error: Bools, answer_all: float, weights: Weights = None
) -> AnswerSweep:
    """Evaluate all rules in O(N log N).

    Args:
        confidence: (N,) float64.
        error: (N,) bool.
        answer_all: threshold of the rule that answers everything, at most the least confidence.
        weights: as in `metrics`.
    """
    order = np.argsort(confidence, kind="stable")
    distinct, first = np.unique(confidence[order], return_index=True)
    w = multiplicities(len(error), weights)[..., order]

    def from_the_top(values: Floats) -> Floats:
        return np.asarray(np.cumsum(values[..., ::-1], axis=-1)[..., ::-1][..., first])

    answered, wrong = from_the_top(w), from_the_top(w * error[order])
    middle = distinct[:-1] + np.diff(distinct) / 2
    # "at least the middle" separates the two even where they are adjacent floats.
    middle = np.where(middle > distinct[:-1], middle, distinct[1:])

    return AnswerSweep(
        thresholds=np.r_[answer_all, middle],
        coverage=answered / answered[..., :1],
        error_rate=ratio(wrong, answered, np.nan),
    )


def least_thresholds(result: AnswerSweep, alpha: float) -> Floats:
    """Return (R,) the least threshold of each replicate with an error rate of at most alpha.

    It is nan where there is none. A sweep without replicates has (1,).
    """
    allowed = np.atleast_2d(result.error_rate) <= alpha + _EQUAL
    found = result.thresholds[allowed.argmax(axis=1)]
    return np.where(allowed.any(axis=1), found, np.nan)


@dataclass(frozen=True)
class AnswersFit:
    """The chosen policy, all rules, and what the chosen one gives on the samples.

    confidence: (N,) log-odds; error: (N,) bool.
    """

    policy: Policy
    sweep: AnswerSweep
    coverage: float
    error_rate: float
    confidence: Floats
    error: Bools


def fit_answers(uncut: Policy, logits: Logits, alpha: float) -> AnswersFit:
    """Choose the least confidence with an error rate of at most `alpha`.

    Args:
        uncut: the policy that always answers.
        logits: of VAL_CALIB.
        alpha: the error rate, in (0, 1).

    Raises:
        InfeasibleError: no threshold has such an error rate.
    """
    confidence = uncut.confidence(logits.logits)
    error = np.asarray(uncut.decision(logits.logits) != logits.truth(uncut.outcomes))
    result = sweep_answers(confidence, error, uncut.threshold_margin)
    threshold = float(least_thresholds(result, alpha)[0])

    if np.isnan(threshold):
        rule = int(np.argmin(result.error_rate))
        raise InfeasibleError(
            f"no confidence has an error rate of at most alpha={alpha:g} among the answered"
            f" images of VAL_CALIB: the lowest is {result.error_rate[rule]:.4f}, at coverage"
            f" {result.coverage[rule]:.4f}; increase alpha"
        )

    chosen = int(np.searchsorted(result.thresholds, threshold))
    return AnswersFit(
        softmax_policy(uncut.outcomes, threshold, uncut.calibrator),
        result,
        float(result.coverage[chosen]),
        float(result.error_rate[chosen]),
        confidence,
        error,
    )


def answers_document(alpha: float, fit: AnswersFit) -> dict[str, Any]:
    """Return fit.json of a confidence that was chosen on VAL_CALIB's samples."""
    return {
        "split": "VAL_CALIB",
        "n_samples": len(fit.error),
        "alpha": alpha,
        "coverage": fit.coverage,
        "error_rate": fit.error_rate,
        "accuracy": float(1 - fit.error.mean()),
    }

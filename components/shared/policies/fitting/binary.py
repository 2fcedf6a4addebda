"""The fit of a binary softmax policy: the threshold on P(positive)."""

from typing import Any

import numpy as np

from components.shared.contracts.errors import InfeasibleError
from components.shared.contracts.outcomes import Outcomes
from components.shared.policies.fitting.config import ThresholdConfig
from components.shared.policies.fitting.threshold import FnrLimit, ThresholdFit, fit_threshold
from components.shared.policies.logits import Logits
from components.shared.policies.policy import Policy, softmax_policy
from components.shared.stats.metrics import Bools, Floats

# With fewer, one or two images decide the threshold, and most bootstrap replicates lack a class.
_MIN_PER_CLASS = 3


def fit_binary(
    config: ThresholdConfig, uncut: Policy, logits: Logits
) -> tuple[Policy, ThresholdFit]:
    """Choose the threshold of a policy on VAL_CALIB.

    Args:
        config: the objective, and the limit of the false negative rate.
        uncut: the policy of threshold 0.5, with its calibrator.
        logits: of VAL_CALIB.

    Raises:
        InfeasibleError: a class has too few samples, or no threshold is within the limit.
    """
    outcomes = uncut.outcomes
    truth, margin = np.asarray(logits.truth(outcomes) == 1), uncut.margin(logits.logits)
    _check_counts(outcomes, truth)
    fit = fit_margins(config, truth, margin, logits.groups)
    return softmax_policy(outcomes, fit.best.threshold, uncut.calibrator), fit


def fit_margins(
    config: ThresholdConfig, truth: Bools, margin: Floats, groups: tuple[str, ...]
) -> ThresholdFit:
    """Choose the threshold of margins (N,); truth: (N,) bool; errors as `fit_threshold`."""
    return fit_threshold(
        truth,
        margin,
        groups,
        objective=config.objective,
        limit=FnrLimit(config.max_fnr, config.max_fnr_delta),
        seed=config.seed,
    )


def binary_document(config: ThresholdConfig, fit: ThresholdFit, truth: Bools) -> dict[str, Any]:
    """Return fit.json of a threshold that was chosen on VAL_CALIB's samples; truth: (N,) bool."""
    return {
        "split": "VAL_CALIB",
        "attempt": config.attempt,
        "n_samples": len(truth),
        "n_positive": int(truth.sum()),
        "objective": config.objective,
        "objective_value": fit.best.objective,
        "false_negative_rate": fit.best.false_negative_rate,
        "false_positive_rate": fit.best.false_positive_rate,
        "max_fnr": config.max_fnr,
        "max_fnr_delta": config.max_fnr_delta,
        "fnr_upper_bound": fit.fnr_upper_bound,
    }


def _check_counts(outcomes: Outcomes, truth: Bools) -> None:
    """Raise InfeasibleError where a class has too few samples for a threshold."""
    n_positive, n_negative = int(truth.sum()), int((~truth).sum())
    if min(n_positive, n_negative) < _MIN_PER_CLASS:
        raise InfeasibleError(
            f"VAL_CALIB has {n_positive} samples of {outcomes.positive_class!r} and {n_negative}"
            f" others, a threshold needs at least {_MIN_PER_CLASS} of each; use more data or a"
            " larger calib_fraction"
        )

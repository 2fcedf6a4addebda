"""The softmax policy of a multiclass task: the confidence from which stage 1 answers.

Confidence is the calibrated log-odds of the most probable class. The policy answers from the least
confidence at which the error rate among the answered images of VAL_CALIB is at most `alpha`. That
is a choice on the samples it is measured on, without a guarantee; the policies `gate` and `scrc`
certify.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from components.fit_threshold.config import FitThresholdConfig
from components.fit_threshold.sweep_outputs import (
    plot_sweep,
    shown_interval,
    threshold_interval,
    write_sweep,
)
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import Manifest, write_json, writing
from components.shared.contracts.errors import InfeasibleError
from components.shared.contracts.listing import say
from components.shared.policies.logits import Logits
from components.shared.policies.policy import Policy, softmax_policy
from components.shared.policies.policy_artifact import FIT, POLICY
from components.shared.stats.metrics import Bools, Floats, Weights, multiplicities, ratio, sigmoid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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


def fit_multiclass(
    config: FitThresholdConfig,
    uncut: Policy,
    logits: Logits,
    path: Path,
    *,
    step: str,
    inputs: Mapping[str, Manifest],
) -> None:
    """Choose the threshold on VAL_CALIB; write policy.json, fit.json, the sweep and its plot.

    Args:
        config: the error rate, resampling.
        uncut: the policy that always answers.
        logits: of VAL_CALIB.
        path: folder of the Policy artifact.
        step: name of the step, for the manifest.
        inputs: manifests of the step's inputs, by name.

    Raises:
        InfeasibleError: no threshold has such an error rate.
    """
    confidence = uncut.confidence(logits.logits)
    error = np.asarray(uncut.decision(logits.logits) != logits.truth(uncut.outcomes))
    result = sweep_answers(confidence, error, uncut.threshold_margin)
    threshold = float(least_thresholds(result, config.alpha)[0])

    if np.isnan(threshold):
        rule = int(np.argmin(result.error_rate))
        raise InfeasibleError(
            f"no confidence has an error rate of at most alpha={config.alpha:g} among the answered"
            f" images of VAL_CALIB: the lowest is {result.error_rate[rule]:.4f}, at coverage"
            f" {result.coverage[rule]:.4f}; increase alpha"
        )

    fitted = softmax_policy(uncut.outcomes, threshold, uncut.calibrator)
    chosen = int(np.searchsorted(result.thresholds, threshold))
    coverage, error_rate = float(result.coverage[chosen]), float(result.error_rate[chosen])
    interval = threshold_interval(
        config,
        logits.groups,
        lambda weights: least_thresholds(
            sweep_answers(confidence, error, uncut.threshold_margin, weights), config.alpha
        ),
    )

    say(
        f"answers from confidence {fitted.threshold:.4f}"
        f" (95 % interval {shown_interval(interval)}): error rate {error_rate:.4f} among"
        f" {coverage:.4f} of {len(error)} samples of VAL_CALIB, no guarantee"
    )

    with writing(path, kind=Kind.POLICY, step=step, config=config, inputs=inputs) as out:
        write_json(out / POLICY, fitted.to_json())
        document = {
            "split": "VAL_CALIB",
            "n_samples": len(error),
            "alpha": config.alpha,
            "coverage": coverage,
            "error_rate": error_rate,
            "accuracy": float(1 - error.mean()),
            "best_threshold_interval_95": interval,
        }
        write_json(out / FIT, document)
        columns = {"coverage": result.coverage, "error_rate": result.error_rate}
        write_sweep(out / "threshold_sweep.csv", result.thresholds, columns)
        plot_sweep(
            out / "threshold.png",
            lambda axes: _draw(axes, config, result),
            threshold=fitted.threshold,
            interval=interval,
            interval_label="95 % interval of the threshold",
            threshold_label="threshold on the probability of the most probable class",
        )


def _draw(axes: "Axes", config: FitThresholdConfig, result: AnswerSweep) -> None:
    """Draw coverage and error rate over the threshold."""
    probability = sigmoid(result.thresholds)
    axes.step(probability, result.coverage, where="post", label="coverage")
    axes.step(probability, result.error_rate, where="post", label="error rate among answered")
    axes.axhline(config.alpha, color="grey", linewidth=1, linestyle=":", label="alpha")

"""What the softmax policy of a multiclass task writes about the confidence it answers from."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from components.fit_threshold.config import FitThresholdConfig
from components.fit_threshold.sweep_outputs import (
    plot_sweep,
    shown_interval,
    threshold_interval,
    write_sweep,
)
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import Manifest, write_json, writing
from components.shared.contracts.listing import say
from components.shared.policies.fitting.answers import (
    AnswerSweep,
    answers_document,
    fit_answers,
    least_thresholds,
    sweep_answers,
)
from components.shared.policies.logits import Logits
from components.shared.policies.policy import Policy
from components.shared.policies.policy_artifact import FIT, POLICY
from components.shared.stats.metrics import sigmoid

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    fit = fit_answers(uncut, logits, config.alpha)
    result, fitted, confidence, error = fit.sweep, fit.policy, fit.confidence, fit.error
    interval = threshold_interval(
        config,
        logits.groups,
        lambda weights: least_thresholds(
            sweep_answers(confidence, error, uncut.threshold_margin, weights), config.alpha
        ),
    )

    say(
        f"answers from confidence {fitted.threshold:.4f}"
        f" (95 % interval {shown_interval(interval)}): error rate {fit.error_rate:.4f} among"
        f" {fit.coverage:.4f} of {len(error)} samples of VAL_CALIB, no guarantee"
    )

    with writing(path, kind=Kind.POLICY, step=step, config=config, inputs=inputs) as out:
        write_json(out / POLICY, fitted.to_json())
        document = answers_document(config.alpha, fit) | {"best_threshold_interval_95": interval}
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

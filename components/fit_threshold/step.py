"""Fits the softmax policy: the threshold on the probability by which stage 1 answers."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from components.fit_threshold.config import FitThresholdConfig
from components.fit_threshold.multiclass import fit_multiclass
from components.fit_threshold.sweep_outputs import (
    plot_sweep,
    shown_interval,
    threshold_interval,
    write_sweep,
)
from components.shared.calibration.artifact import read_calibrator
from components.shared.calibration.calibrator import LogitArray
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import Manifest, write_json, writing
from components.shared.contracts.errors import InfeasibleError
from components.shared.contracts.listing import say
from components.shared.contracts.step import InputDir, OutputDir, main
from components.shared.policies.early_exit import fit_early_exit, write_early_exit
from components.shared.policies.fitting.binary import binary_document, fit_binary, fit_margins
from components.shared.policies.fitting.sweep import Sweep, best_thresholds, sweep
from components.shared.policies.logits import Logits, read_logits
from components.shared.policies.policy import Infeasible, Policy, argmax_policy, softmax_policy
from components.shared.policies.policy_artifact import (
    DISTILLED_POLICY,
    FIT,
    POLICY,
    write_infeasible,
)
from components.shared.stats.bootstrap import Interval
from components.shared.stats.metrics import Bools, sigmoid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STEP = "fit_threshold"


def run(
    config: FitThresholdConfig,
    *,
    val_calib_logits: InputDir,
    policy: OutputDir,
    calibration: InputDir | None = None,
) -> None:
    """Choose the threshold on VAL_CALIB; write policy.json, fit.json, the sweep and its plot.

    Binary: the threshold on P(positive), by `objective`. Multiclass: that on the probability of the
    most probable class, by `alpha`. Where VAL_CALIB is too small, or no threshold is within the
    limit (`max_fnr`, `alpha`), the artifact holds infeasible.json with the reason instead.

    Args:
        config: objective, largest false negative rate, resampling.
        val_calib_logits: logits of VAL_CALIB.
        policy: folder of the Policy artifact.
        calibration: calibrator whose probability the threshold is on; the model's own without it.

    Raises:
        DataError: the positive class is unknown.
    """
    logits, manifest = read_logits(val_calib_logits, "VAL_CALIB")
    outcomes = config.outcomes(logits.class_names)
    inputs = {"val_calib_logits": manifest}
    calibrator = None
    if calibration is not None:
        calibrator, inputs["calibration"] = read_calibrator(calibration, manifest)

    uncut = argmax_policy(outcomes, calibrator)
    fit_policy = _fit_binary if outcomes.positive is not None else fit_multiclass

    try:
        config.check_task(outcomes)
        fit_policy(config, uncut, logits, policy, step=STEP, inputs=inputs)
    except InfeasibleError as error:
        infeasible = Infeasible(uncut.kind, str(error))
        write_infeasible(policy, infeasible, step=STEP, config=config, inputs=inputs)


def _fit_binary(
    config: FitThresholdConfig,
    uncut: Policy,
    logits: Logits,
    path: Path,
    *,
    step: str,
    inputs: Mapping[str, Manifest],
) -> None:
    """Choose the threshold on P(positive) and write the artifact; raises InfeasibleError."""
    fitted, fit = fit_binary(config, uncut, logits)
    truth = np.asarray(logits.truth(uncut.outcomes) == 1)
    margin, best = uncut.margin(logits.logits), fit.best
    # Of the threshold that is best for the population; the chosen one is a smoother estimate of it.
    interval = threshold_interval(
        config,
        logits.groups,
        lambda weights: best_thresholds(
            sweep(truth, margin, config.objective, weights), config.max_fnr
        ),
    )
    early_exit = fit_early_exit(
        fitted, logits, max_changed=config.early_exit_error, seed=config.seed
    )

    say(
        f"threshold {fitted.threshold:.4f} (95 % interval of the best {shown_interval(interval)}), "
        f"{config.objective} {best.objective:.4f} on {len(truth)} samples of VAL_CALIB"
    )

    with writing(path, kind=Kind.POLICY, step=step, config=config, inputs=inputs) as out:
        write_json(out / POLICY, fitted.to_json())
        document = binary_document(config, fit, truth) | {"best_threshold_interval_95": interval}
        write_json(out / FIT, document)
        write_early_exit(out, early_exit)
        if logits.distilled is not None:
            _write_distilled(out / DISTILLED_POLICY, config, logits, logits.distilled, truth)

        _write_sweep(out, config, fitted, fit.sweep, interval)


def _write_distilled(
    file: Path, config: FitThresholdConfig, logits: Logits, distilled: LogitArray, truth: Bools
) -> None:
    """Fit the threshold of the distilled head, from its logits (N, C), and write its policy.

    It has no calibrator, so that the threshold can be put into the head's weights.
    """
    outcomes = config.outcomes(logits.class_names)
    uncut = softmax_policy(outcomes, 0.0)
    try:
        fit = fit_margins(config, truth, uncut.margin(distilled), logits.groups)
    except InfeasibleError as error:
        say(f"distilled head: infeasible. {error}")
        return

    threshold = fit.best.threshold
    fitted = softmax_policy(outcomes, threshold)
    write_json(file, fitted.to_json())


def _write_sweep(
    out: Path, config: FitThresholdConfig, fitted: Policy, result: Sweep, interval: Interval
) -> None:
    columns = {
        "objective": result.objective,
        "false_negative_rate": result.false_negative_rate,
        "false_positive_rate": result.false_positive_rate,
    }
    write_sweep(out / "threshold_sweep.csv", result.thresholds, columns)
    plot_sweep(
        out / "threshold.png",
        lambda axes: _draw(axes, config.objective, result),
        threshold=fitted.threshold,
        interval=interval,
        interval_label="95 % interval of the best threshold",
        threshold_label=f"threshold on P({fitted.outcomes.positive_class})",
    )


def _draw(axes: "Axes", objective: str, result: Sweep) -> None:
    """Draw objective and error rates over the threshold."""
    probability = sigmoid(result.thresholds)
    axes.step(probability, result.objective, where="mid", label=objective)

    for label, rate in (
        ("false negative rate", result.false_negative_rate),
        ("false positive rate", result.false_positive_rate),
    ):
        axes.step(probability, rate, where="mid", label=label, linewidth=1)


if __name__ == "__main__":
    main(run, FitThresholdConfig)

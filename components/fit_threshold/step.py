"""Phase 2: the probability above which stage 1 answers roadwork."""

import csv
from pathlib import Path

import numpy as np

from components.fit_threshold.config import FitThresholdConfig
from components.fit_threshold.sweep import Best, Sweep, best_threshold, best_thresholds, sweep
from components.shared.calibration.artifact import read_calibrator
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import write_json, writing
from components.shared.contracts.errors import DataError
from components.shared.contracts.step import InputDir, OutputDir, main
from components.shared.policies.early_exit import fit_early_exit, write_early_exit
from components.shared.policies.logits import Logits, read_logits
from components.shared.policies.policy import DISTILLED_POLICY, Policy, softmax_policy
from components.shared.stats.bootstrap import group_weights, membership, percentile_interval
from components.shared.stats.metrics import Bools, Floats, sigmoid

# Below this a threshold is decided by one or two images, and most bootstrap replicates lack a
# class.
_MIN_PER_CLASS = 3


def run(
    config: FitThresholdConfig,
    *,
    val_calib_logits: InputDir,
    policy: OutputDir,
    calibration: InputDir | None = None,
) -> None:
    """Sweep all thresholds on VAL_CALIB; write policy.json, fit.json, threshold_sweep.csv and
    threshold.png.

    The threshold is on the probability of `calibration`'s calibrator; without one, on the model's
    own.
    """
    logits, manifest = read_logits(val_calib_logits, "VAL_CALIB")
    truth = _truth(config, logits)
    inputs = {"val_calib_logits": manifest}
    calibrator = None
    if calibration is not None:
        calibrator, inputs["calibration"] = read_calibrator(calibration, inputs["val_calib_logits"])
    margin = softmax_policy(logits.class_names, config.positive_class, 0.0, calibrator).margin(
        logits.logits
    )
    result = sweep(truth, margin, config.objective)
    best = best_threshold(result, config.max_fnr)
    fitted = softmax_policy(logits.class_names, config.positive_class, best.threshold, calibrator)
    interval = _interval(config, truth, margin, logits.groups)
    shown = f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else "none"
    early = fit_early_exit(fitted, logits, max_changed=config.early_exit_error, seed=config.seed)
    print(
        f"threshold {fitted.threshold:.4f} (95 % interval {shown}), "
        f"{config.objective} {best.objective:.4f} on {len(truth)} samples of VAL_CALIB"
    )
    with writing(
        policy, kind=Kind.POLICY, step="fit_threshold", config=config, inputs=inputs
    ) as out:
        write_json(out / "policy.json", fitted.to_json())
        write_json(out / "fit.json", _fit_document(config, best, interval, truth))
        write_early_exit(out, early)
        if logits.distilled is not None:
            write_json(out / DISTILLED_POLICY, _distilled_policy(config, logits, truth).to_json())
        _write_sweep(out / "threshold_sweep.csv", result)
        _plot(out / "threshold.png", config, result, fitted.threshold, interval)


def _distilled_policy(config: FitThresholdConfig, logits: Logits, truth: Bools) -> Policy:
    """The threshold of the student that sees whole images alone; without a calibrator, so that it
    can be folded.
    """
    uncalibrated = softmax_policy(logits.class_names, config.positive_class, 0.0)
    assert logits.distilled is not None
    best = best_threshold(
        sweep(truth, uncalibrated.margin(logits.distilled), config.objective), config.max_fnr
    )
    return softmax_policy(logits.class_names, config.positive_class, best.threshold)


def _truth(config: FitThresholdConfig, logits: Logits) -> Bools:
    if config.positive_class not in logits.class_names:
        raise DataError(
            f"positive_class={config.positive_class!r} is not in {list(logits.class_names)}"
        )
    truth: Bools = logits.labels == logits.class_names.index(config.positive_class)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if min(positives, negatives) < _MIN_PER_CLASS:
        raise DataError(
            f"VAL_CALIB has {positives} samples of {config.positive_class!r} and {negatives}"
            f" others, a threshold needs at least {_MIN_PER_CLASS} of each; use more data or a"
            " larger calib_fraction"
        )
    return truth


def _interval(
    config: FitThresholdConfig, truth: Bools, margin: Floats, groups: tuple[str, ...]
) -> tuple[float, float] | None:
    """95 % bootstrap interval of the threshold on the probability scale, over groups."""
    batches = group_weights(membership(groups, len(groups)), config.n_bootstrap, config.seed)
    thresholds = [
        best_thresholds(sweep(truth, margin, config.objective, w), config.max_fnr) for w in batches
    ]
    return percentile_interval(sigmoid(np.concatenate(thresholds)))


def _fit_document(
    config: FitThresholdConfig, best: Best, interval: tuple[float, float] | None, truth: Bools
) -> dict[str, object]:
    return {
        "split": "VAL_CALIB",
        "n_samples": len(truth),
        "n_positive": int(truth.sum()),
        "objective": config.objective,
        "objective_value": best.objective,
        "false_negative_rate": best.false_negative_rate,
        "false_positive_rate": best.false_positive_rate,
        "max_fnr": config.max_fnr,
        "threshold_interval_95": interval,
    }


def _write_sweep(path: Path, result: Sweep) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["threshold", "objective", "false_negative_rate", "false_positive_rate"])
        columns = (
            sigmoid(result.thresholds),
            result.objective,
            result.false_negative_rate,
            result.false_positive_rate,
        )
        writer.writerows([f"{value:.9g}" for value in row] for row in zip(*columns, strict=True))


def _plot(
    path: Path,
    config: FitThresholdConfig,
    result: Sweep,
    threshold: float,
    interval: tuple[float, float] | None,
) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    probability = sigmoid(result.thresholds)
    axes.step(probability, result.objective, where="mid", label=config.objective)
    axes.step(
        probability,
        result.false_negative_rate,
        where="mid",
        label="false negative rate",
        linewidth=1,
    )
    axes.step(
        probability,
        result.false_positive_rate,
        where="mid",
        label="false positive rate",
        linewidth=1,
    )
    axes.axvline(threshold, color="black", linewidth=1)
    if interval is not None:
        axes.axvspan(*interval, alpha=0.15, label="95 % interval of the threshold")
    axes.set_xlabel(f"threshold on P({config.positive_class})")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120, metadata={"Software": None})


if __name__ == "__main__":
    main(run, FitThresholdConfig)

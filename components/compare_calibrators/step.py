"""Compares calibrators by cross-fitting on VAL_CALIB and fits the chosen one."""

from pathlib import Path
from typing import Any

from components.compare_calibrators.config import CompareCalibratorsConfig
from components.shared.calibration import registry
from components.shared.calibration.artifact import FILE
from components.shared.calibration.compare import (
    AUTO,
    UNCALIBRATED,
    CalibratorComparison,
    FittedCalibrator,
    LabelledLogits,
    compare,
    fit_chosen,
)
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import write_json, writing
from components.shared.contracts.listing import say
from components.shared.contracts.step import InputDir, OutputDir, main
from components.shared.contracts.tables import write_table
from components.shared.policies.logits import read_logits

STEP = "compare_calibrators"


def run(
    config: CompareCalibratorsConfig, *, val_calib_logits: InputDir, calibration: OutputDir
) -> None:
    """Write calibrator.json (fitted on all of VAL_CALIB), comparison.json and comparison.csv.

    calibrator.json is null where the logits stay uncalibrated, by the choice or because the
    calibrator cannot be fitted; comparison.json says why.

    Raises:
        DataError: the positive class is unknown, or a binary task of several classes names none.
    """
    logits, manifest = read_logits(val_calib_logits, "VAL_CALIB")
    positive = config.outcomes(logits.class_names).positive
    samples = LabelledLogits(logits.logits, logits.labels, logits.groups, logits.class_names)
    comparison = compare(
        samples, n_replicates=config.n_bootstrap, seed=config.seed, positive=positive
    )
    by_rule = comparison.chosen, comparison.reason
    fitted = fit_chosen(
        *(by_rule if config.calibrator == AUTO else (config.calibrator, "")), samples
    )

    say(f"{_summary(comparison, fitted)} on {len(logits.labels)} samples of VAL_CALIB")
    inputs = {"val_calib_logits": manifest}
    with writing(
        calibration, kind=Kind.CALIBRATION, step=STEP, config=config, inputs=inputs
    ) as out:
        document = None if fitted.calibrator is None else fitted.calibrator.to_json()
        write_json(out / FILE, document)
        write_json(out / "comparison.json", _comparison_document(comparison, fitted, config))
        _write_table(out / "comparison.csv", comparison)


def _summary(comparison: CalibratorComparison, fitted: FittedCalibrator) -> str:
    """Return name and cross-fitted NLL of the calibrator, with the reason where there is none."""
    nlls = {row.name: row.scores["nll"].value for row in comparison.rows if row.scores}
    before = nlls[UNCALIBRATED]
    if fitted.calibrator is None:
        return f"no calibrator ({fitted.reason}): NLL {before:.4f}"

    # For two classes the same calibrator may have two names.
    name = fitted.name if fitted.name in nlls else registry.SAME_FOR_TWO_CLASSES.get(fitted.name)
    if name not in nlls:
        return f"calibrator {fitted.name}: NLL {before:.4f}, not cross-fitted"
    return f"calibrator {fitted.name}: cross-fitted NLL {before:.4f} -> {nlls[name]:.4f}"


def _comparison_document(
    comparison: CalibratorComparison, fitted: FittedCalibrator, config: CompareCalibratorsConfig
) -> dict[str, Any]:
    calibrators = {}
    for row in comparison.rows:
        metrics = {
            metric: {
                "value": score.value,
                "interval_95": score.interval,
                "calibrated_95": score.band,
            }
            for metric, score in row.scores.items()
        }
        calibrators[row.name] = {
            "metrics": metrics,
            "excess_nll": row.excess,
            "standard_error": row.standard_error,
            "excluded": row.excluded,
        }

    return {
        "split": "VAL_CALIB",
        "chosen": fitted.name,
        "reason": fitted.reason,
        "best_by_rule": comparison.chosen,
        "calibrators": calibrators,
        "n_bootstrap": config.n_bootstrap,
    }


def _write_table(file: Path, comparison: CalibratorComparison) -> None:
    """Write one row for each calibrator and metric.

    calibrated_95 is the error that a calibrated model exceeds on 5 % of such samples.
    """
    table = []
    for row in comparison.rows:
        for metric, score in row.scores.items():
            bounds = score.interval or ("", "")
            calibrated = "" if score.band is None else score.band[1]
            table.append([row.name, metric, score.value, *bounds, calibrated])

    columns = ["calibrator", "metric", "value", "low_95", "high_95", "calibrated_95"]
    write_table(file, columns, table, for_people=True)


if __name__ == "__main__":
    main(run, CompareCalibratorsConfig)

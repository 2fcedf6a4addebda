"""Compares calibrators by cross-fitting on VAL_CALIB and fits the chosen one."""

import csv
from pathlib import Path
from typing import Any

from components.compare_calibrators.config import CompareCalibratorsConfig
from components.shared.calibration import registry
from components.shared.calibration.artifact import FILE
from components.shared.calibration.compare import AUTO, UNCALIBRATED, CalibratorComparison, compare
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import write_json, writing
from components.shared.contracts.step import InputDir, OutputDir, main
from components.shared.policies.logits import read_logits

STEP = "compare_calibrators"


def run(
    config: CompareCalibratorsConfig, *, val_calib_logits: InputDir, calibration: OutputDir
) -> None:
    """Write calibrator.json (fitted on all of VAL_CALIB), comparison.json and comparison.csv.

    Raises:
        DataError: the positive class is unknown, or a class has too few samples or groups.
    """
    logits, manifest = read_logits(val_calib_logits, "VAL_CALIB")
    comparison = compare(
        logits.logits,
        logits.labels,
        logits.groups,
        n_replicates=config.n_bootstrap,
        seed=config.seed,
        positive=logits.positive_index(config.positive_class),
    )

    chosen = comparison.chosen if config.calibrator == AUTO else config.calibrator
    fitted = registry.fit(chosen, logits.logits, logits.labels)

    before, after = _nll(comparison, UNCALIBRATED), _nll(comparison, chosen)
    print(
        f"calibrator {chosen}: cross-fitted NLL {before:.4f} -> {after:.4f} on"
        f" {len(logits.labels)} samples of VAL_CALIB"
    )
    inputs = {"val_calib_logits": manifest}
    with writing(
        calibration, kind=Kind.CALIBRATION, step=STEP, config=config, inputs=inputs
    ) as out:
        write_json(out / FILE, fitted.to_json())
        write_json(out / "comparison.json", _comparison_document(comparison, chosen, config))
        _write_table(out / "comparison.csv", comparison)


def _nll(comparison: CalibratorComparison, name: str) -> float:
    """Return the cross-fitted NLL of a calibrator, or of its equivalent for two classes."""
    nlls = {row.name: row.scores["nll"][0] for row in comparison.rows}
    return nlls[name] if name in nlls else nlls[registry.SAME_FOR_TWO_CLASSES[name]]


def _comparison_document(
    comparison: CalibratorComparison, chosen: str, config: CompareCalibratorsConfig
) -> dict[str, Any]:
    calibrators = {}
    for row in comparison.rows:
        metrics = {
            metric: {"value": value, "interval_95": bounds}
            for metric, (value, bounds) in row.scores.items()
        }
        calibrators[row.name] = {
            "metrics": metrics,
            "excess_nll": row.excess,
            "standard_error": row.standard_error,
        }

    return {
        "split": "VAL_CALIB",
        "chosen": chosen,
        "best_by_rule": comparison.chosen,
        "calibrators": calibrators,
        "n_bootstrap": config.n_bootstrap,
    }


def _write_table(file: Path, comparison: CalibratorComparison) -> None:
    """Write one row for each calibrator and metric."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["calibrator", "metric", "value", "low_95", "high_95"])
        for row in comparison.rows:
            for metric, (value, bounds) in row.scores.items():
                writer.writerow([row.name, metric, value, *(bounds or ("", ""))])


if __name__ == "__main__":
    main(run, CompareCalibratorsConfig)

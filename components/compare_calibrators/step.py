"""Which calibrator makes this model's probabilities honest, and by how much?"""

import csv
from pathlib import Path
from typing import Any

from components.compare_calibrators.config import CompareCalibratorsConfig
from components.shared.calibration import registry
from components.shared.calibration.artifact import FILE
from components.shared.calibration.compare import UNCALIBRATED, Comparison, compare
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import write_json, writing
from components.shared.contracts.errors import DataError
from components.shared.contracts.step import InputDir, OutputDir, main
from components.shared.policies.logits import read_logits


def run(
    config: CompareCalibratorsConfig, *, val_calib_logits: InputDir, calibration: OutputDir
) -> None:
    """Write calibrator.json (fitted on all of VAL_CALIB), comparison.json and comparison.csv.

    Raises DataError where the positive class is unknown, or a class has too few samples or groups.
    """
    logits, manifest = read_logits(val_calib_logits, "VAL_CALIB")
    if config.positive_class not in logits.class_names:
        raise DataError(
            f"positive_class={config.positive_class!r} is not in {list(logits.class_names)}"
        )
    found = compare(
        logits.logits,
        logits.labels,
        logits.groups,
        n_replicates=config.n_bootstrap,
        seed=config.seed,
        positive=logits.class_names.index(config.positive_class),
    )
    chosen = found.chosen if config.calibrator == "auto" else config.calibrator
    fitted = registry.fit(chosen, logits.logits, logits.labels)
    before, after = (_nll(found, name) for name in (UNCALIBRATED, chosen))
    print(
        f"calibrator {chosen}: cross-fitted NLL {before:.4f} -> {after:.4f} on {len(logits.labels)}"
        " of VAL_CALIB"
    )
    with writing(
        calibration,
        kind=Kind.CALIBRATION,
        step="compare_calibrators",
        config=config,
        inputs={"val_calib_logits": manifest},
    ) as out:
        write_json(out / FILE, fitted.to_json())
        write_json(out / "comparison.json", _document(found, chosen, config))
        _write_table(out / "comparison.csv", found)


def _nll(found: Comparison, name: str) -> float:
    name = (
        name if any(row.name == name for row in found.rows) else registry.SAME_FOR_TWO_CLASSES[name]
    )
    return next(row.scores["nll"][0] for row in found.rows if row.name == name)


def _document(found: Comparison, chosen: str, config: CompareCalibratorsConfig) -> dict[str, Any]:
    rows = {
        row.name: {
            "metrics": {
                key: {"value": value, "interval_95": bounds}
                for key, (value, bounds) in row.scores.items()
            },
            "excess_nll": row.excess,
            "standard_error": row.standard_error,
        }
        for row in found.rows
    }
    return {
        "split": "VAL_CALIB",
        "chosen": chosen,
        "best_by_rule": found.chosen,
        "calibrators": rows,
    } | {"n_bootstrap": config.n_bootstrap}


def _write_table(file: Path, found: Comparison) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["calibrator", "metric", "value", "low_95", "high_95"])
        for row in found.rows:
            for metric, (value, bounds) in row.scores.items():
                writer.writerow([row.name, metric, value, *(bounds or ("", ""))])


if __name__ == "__main__":
    main(run, CompareCalibratorsConfig)

"""Files of the Evaluation artifact: metrics, confusion matrix, hard examples and HTML report.

docs/reference/artifacts.md describes every key of eval_report.json.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.evaluate.config import EvaluateConfig
from components.evaluate.inputs import EvaluationInputs
from components.evaluate.policies import PolicyResults
from components.evaluate.report.evidence import evidence_of
from components.evaluate.report.per_class import COLUMNS, ClassResult
from components.evaluate.report.report import HardExample, PolicyResult, ReportData, render
from components.evaluate.report.scorecard import Entry
from components.shared.contracts.artifacts import write_json
from components.shared.contracts.outcomes import BINARY
from components.shared.contracts.tables import write_table
from components.shared.policies.predictions import question

REPORT = "report.html"

# Fields of HardExample, in the order of hard_examples.csv.
_HARD_EXAMPLE_COLUMNS = (
    "sample_id",
    "source",
    "path",
    "group",
    "label",
    "decision",
    "probability",
    "probability_of_label",
    "confidence",
)
_CLASS_COUNTS = ("n_images", "n_groups", "n_decided")


def write_evaluation(
    directory: Path, config: EvaluateConfig, inputs: EvaluationInputs, results: PolicyResults
) -> None:
    """Write all files into the artifact's staging directory."""
    shown = results.shown
    hard = _hard_examples(config, inputs, results)

    write_json(directory / "eval_report.json", _document(config, inputs, results))
    write_json(
        directory / "confusion.json",
        {"labels": shown.predictions.outcomes.names, "matrix": shown.confusion.tolist()},
    )
    _write_metrics(directory / "metrics.csv", shown.metrics)
    _write_classes(directory / "per_class.csv", shown.classes)
    _write_hard_examples(directory / "hard_examples.csv", hard)

    report = ReportData(
        policies=results.results,
        hard=hard,
        counts=inputs.images.dataset.summary,
        lineage=inputs.manifests,
        targets=config.targets,
        n_bootstrap=config.n_bootstrap,
        guarantees=results.guarantees,
        infeasible=inputs.infeasible,
        bundled=config.policy,
        comparisons=results.comparisons,
        early_exits=results.early_exits,
        robustness=results.robustness,
        distilled_head=results.distilled_head,
        slices=results.slices,
        cascade=results.cascade,
    )
    (directory / REPORT).write_text(render(report), encoding="utf-8")


def _document(
    config: EvaluateConfig, inputs: EvaluationInputs, results: PolicyResults
) -> dict[str, Any]:
    """Return eval_report.json; sections of optional inputs are left out where these are missing."""
    predictions = results.shown.predictions
    outcomes = predictions.outcomes
    policies: dict[str, Any] = {
        kind: _policy_document(result, results) for kind, result in results.results.items()
    }
    for kind, reason in inputs.infeasible.items():
        policies.setdefault(kind, {})["infeasible"] = reason

    document = {
        "split": "VAL_TEST",
        "task": outcomes.task,
        "question": question(outcomes),
        "class_names": list(outcomes.class_names),
        "positive_class": outcomes.positive_class,
        "outcomes": list(outcomes.names),
        "n_samples": len(predictions.truth),
        "n_per_outcome": predictions.counts,
        "n_groups": predictions.n_groups,
        "n_bootstrap": config.n_bootstrap,
        "target_precision": config.target_precision,
        "bundled": {
            "policy": config.policy,
            "infeasible": inputs.infeasible.get(config.policy),
        },
        "policy": results.shown.policy.to_json(),
        "metrics": dict(results.shown.metrics),
        "calibration_p_value": results.shown.calibration_p_value,
        "classes": {row.name: _class_document(row) for row in results.shown.classes},
        "policies": policies,
        "slices": results.slices.to_json(),
        "against_confidence": {
            kind: comparison.to_json() for kind, comparison in results.comparisons.items()
        },
    }
    if results.cascade is not None:
        document["cascade"] = results.cascade.to_json()
    if outcomes.task == BINARY:
        document["n_positive"] = int(predictions.is_positive.sum())
    if results.robustness:
        document["robustness"] = {entry.kind: entry.to_json() for entry in results.robustness}
    if results.distilled_head is not None:
        document["student"] = dict(results.distilled_head.metrics)
    if results.early_exits:
        document["early_exit"] = {entry.kind: entry.to_json() for entry in results.early_exits}

    return document


def _policy_document(result: PolicyResult, results: PolicyResults) -> dict[str, Any]:
    kind = result.policy.kind
    return {
        "policy": result.policy.to_json(),
        "metrics": dict(result.metrics),
        "calibration_p_value": result.calibration_p_value,
        "uncalibrated_reason": result.uncalibrated_reason or None,
        "guarantees": [found.to_json() for found in results.guarantees if found.kind == kind],
    }


def _class_document(row: ClassResult) -> dict[str, Any]:
    counts = {name: getattr(row, name) for name in _CLASS_COUNTS}
    return {**counts, "metrics": dict(row.metrics)}


def _hard_examples(
    config: EvaluateConfig, inputs: EvaluationInputs, results: PolicyResults
) -> list[HardExample]:
    """Return the errors with the highest confidence, worst first."""
    predictions, images = results.shown.predictions, inputs.images
    names = predictions.outcomes.names
    wrong = np.flatnonzero(predictions.error)
    worst_first = wrong[np.argsort(-predictions.confidence[wrong], kind="stable")]
    logits = inputs.policies[results.shown.policy.kind].logits

    examples = []

    for row in worst_first[: config.n_hard_examples].tolist():
        truth, decision = int(predictions.truth[row]), int(predictions.decision[row])
        examples.append(
            HardExample(
                sample_id=logits.sample_ids[row],
                source=logits.sources[row],
                path=logits.paths[row],
                group=logits.groups[row],
                label=names[truth],
                decision=names[decision],
                probability=float(predictions.probabilities[row, decision]),
                probability_of_label=float(predictions.probabilities[row, truth]),
                confidence=float(predictions.confidence[row]),
                error=_error_name(predictions.outcomes.task, truth),
                thumbnail=images.thumbnail(logits.sample_ids[row]),
                evidence=evidence_of(
                    images.parts.get(logits.sample_ids[row]),
                    logits.logits[row],
                    int(logits.labels[row]),
                    decision,
                    predictions.outcomes,
                ),
            )
        )

    return examples


def _error_name(task: str, truth: int) -> str:
    if task != BINARY:
        return "wrong"
    return "missed" if truth == 1 else "false alarm"


def _write_metrics(file: Path, metrics: Mapping[str, Entry]) -> None:
    rows = ([name, *_cells(entry), _calibrated(entry)] for name, entry in metrics.items())
    columns = ["metric", "value", "low_95", "high_95", "calibrated_95"]
    write_table(file, columns, rows, for_people=True)


def _write_classes(file: Path, classes: Sequence[ClassResult]) -> None:
    """Write one row for each outcome."""
    columns = ["class", *_CLASS_COUNTS]
    for name in COLUMNS:
        columns += [name, f"{name}_low_95", f"{name}_high_95"]

    table = []
    for row in classes:
        values: list[object] = [row.name, *(getattr(row, name) for name in _CLASS_COUNTS)]
        for name in COLUMNS:
            values += _cells(row.metrics[name])
        table.append([*values, _calibrated(row.metrics["ece"])])

    write_table(file, [*columns, "ece_calibrated_95"], table, for_people=True)


def _cells(entry: Entry) -> list[object]:
    """Return value, lower and upper end; empty where there is none."""
    value = "" if entry["value"] is None else entry["value"]
    return [value, *(entry["interval_95"] or ("", ""))]


def _calibrated(entry: Entry) -> object:
    """Return the bound of a calibration error of a calibrated model; empty where there is none."""
    band = entry.get("calibrated_95")
    return "" if band is None else band[1]


def _write_hard_examples(file: Path, examples: list[HardExample]) -> None:
    rows = [[getattr(example, name) for name in _HARD_EXAMPLE_COLUMNS] for example in examples]
    shown = ([f"{v:.6f}" if isinstance(v, float) else v for v in row] for row in rows)
    write_table(file, _HARD_EXAMPLE_COLUMNS, shown, for_people=True)

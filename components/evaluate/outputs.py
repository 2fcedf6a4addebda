"""Files of the Evaluation artifact: metrics, confusion matrix, hard examples and HTML report."""

import csv
from pathlib import Path
from typing import Any

import numpy as np

from components.evaluate.config import EvaluateConfig
from components.evaluate.inputs import EvaluationInputs
from components.evaluate.policies import PolicyResults
from components.evaluate.report.report import HardExample, ReportData, render
from components.shared.contracts.artifacts import write_json

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
    "margin",
)


def write_evaluation(
    directory: Path, config: EvaluateConfig, inputs: EvaluationInputs, results: PolicyResults
) -> None:
    """Write all files into the artifact's staging directory."""
    class_names = inputs.policies[results.shown.policy.kind].class_names
    hard = _hard_examples(config, inputs, results, class_names)

    write_json(directory / "eval_report.json", _document(config, inputs, results))
    write_json(
        directory / "confusion.json",
        {"labels": class_names, "matrix": results.shown.confusion},
    )
    _write_metrics(directory / "metrics.csv", results)
    _write_hard_examples(directory / "hard_examples.csv", hard)

    report = ReportData(
        class_names=class_names,
        policies=results.results,
        hard=hard,
        counts=inputs.dataset.manifest.summary,
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
    )
    (directory / REPORT).write_text(render(report), encoding="utf-8")


def _document(
    config: EvaluateConfig, inputs: EvaluationInputs, results: PolicyResults
) -> dict[str, Any]:
    """Return eval_report.json; sections of optional inputs are left out where these are missing."""
    predictions = results.shown.predictions
    policies: dict[str, Any] = {
        kind: {"policy": result.policy.to_json(), "metrics": dict(result.metrics)}
        for kind, result in results.results.items()
    }
    for kind, reason in inputs.infeasible.items():
        policies.setdefault(kind, {})["infeasible"] = reason

    document = {
        "split": "VAL_TEST",
        "n_samples": len(predictions.truth),
        "n_positive": int(predictions.truth.sum()),
        "n_groups": predictions.n_groups,
        "n_bootstrap": config.n_bootstrap,
        "target_precision": config.target_precision,
        "bundled": {
            "policy": config.policy,
            "infeasible": inputs.infeasible.get(config.policy),
        },
        "policy": results.shown.policy.to_json(),
        "metrics": dict(results.shown.metrics),
        "policies": policies,
        "against_confidence": {
            kind: comparison.to_json() for kind, comparison in results.comparisons.items()
        },
    }
    if results.robustness:
        document["robustness"] = {entry.kind: entry.to_json() for entry in results.robustness}
    if results.distilled_head is not None:
        document["student"] = dict(results.distilled_head.metrics)
    if results.early_exits:
        document["early_exit"] = {entry.kind: entry.to_json() for entry in results.early_exits}

    return document


def _hard_examples(
    config: EvaluateConfig,
    inputs: EvaluationInputs,
    results: PolicyResults,
    class_names: tuple[str, str],
) -> list[HardExample]:
    """Return the errors with the highest confidence, worst first."""
    predictions, data = results.shown.predictions, inputs.dataset
    wrong = np.flatnonzero(predictions.error)
    worst_first = wrong[np.argsort(-predictions.confidence[wrong], kind="stable")]
    rows = worst_first[: config.n_hard_examples].tolist()

    sample_ids = inputs.policies[results.shown.policy.kind].logits.sample_ids
    positions = np.array([data.index[sample_ids[row]] for row in rows], dtype=np.int64)
    images = data.images(positions)

    examples = []

    for row, position, image in zip(rows, positions.tolist(), images, strict=True):
        sample = data.samples[position]
        examples.append(
            HardExample(
                sample_id=sample.sample_id,
                source=sample.source,
                path=sample.path,
                group=sample.group,
                label=class_names[int(predictions.truth[row])],
                decision=class_names[int(predictions.decision[row])],
                probability=float(predictions.probability[row]),
                margin=float(predictions.margin[row]),
                missed=bool(predictions.truth[row]),
                image=image,
            )
        )

    return examples


def _write_metrics(file: Path, results: PolicyResults) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["metric", "value", "low_95", "high_95"])
        for name, entry in results.shown.metrics.items():
            writer.writerow([name, entry["value"], *(entry["interval_95"] or ("", ""))])


def _write_hard_examples(file: Path, examples: list[HardExample]) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(_HARD_EXAMPLE_COLUMNS)

        for example in examples:
            values = [getattr(example, name) for name in _HARD_EXAMPLE_COLUMNS]
            writer.writerow([f"{v:.6f}" if isinstance(v, float) else v for v in values])

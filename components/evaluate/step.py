"""Evaluation of the model and its policies on VAL_TEST, the split that no earlier phase reads."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.evaluate.config import EvaluateConfig
from components.evaluate.policies import PolicyResults, evaluate_policies, read_candidates
from components.evaluate.report.plots import thinned
from components.evaluate.report.report import HardExample, ReportData, render
from components.evaluate.report.scorecard import Entry, Predictions
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import write_json, writing
from components.shared.contracts.errors import ArtifactError, DataError
from components.shared.contracts.step import InputDir, OutputDir, OutputFile, main
from components.shared.data.dataset import Dataset, Sample
from components.shared.policies.logits import Logits
from components.shared.policies.policy import Policy
from components.shared.stats import metrics

_MAX_ROC_POINTS = 200  # what the KFP UI draws without delay


@dataclass(frozen=True)
class Result:
    """What the KFP UI shows: scalars, (fpr, tpr, finite thresholds), confusion matrix with a row
    per true class.
    """

    metrics: dict[str, float]
    roc: tuple[list[float], list[float], list[float]]
    labels: list[str]
    confusion: list[list[int]]


def run(
    config: EvaluateConfig,
    *,
    val_test_logits: InputDir,
    softmax_policy: InputDir,
    dataset: InputDir,
    evaluation: OutputDir,
    report: OutputFile,
    gate_test_logits: InputDir | None = None,
    gate_policy: InputDir | None = None,
    scrc_policy: InputDir | None = None,
) -> Result:
    """Write the Evaluation artifact and the HTML report; `config.policy` is the one shown in
    detail.

    Raises LeakageViolationError for any other split's logits, ArtifactError where logits, policies
    and dataset do not belong together, DataError where VAL_TEST lacks a class.
    """
    data = Dataset.open(dataset)
    paths = {"softmax": softmax_policy, "gate": gate_policy, "scrc": scrc_policy}
    candidates, inputs = read_candidates(paths, val_test_logits, gate_test_logits)
    inputs["dataset"] = data.manifest
    for logits, rule in candidates.fitted.values():
        _check(config, logits, rule, data)
    judged = evaluate_policies(config, candidates)
    rule, predictions, values = judged.shown.policy, judged.shown.predictions, judged.shown.metrics
    logits = candidates.fitted[rule.kind][0]
    names, hard = _class_names(logits, rule), _worst_errors(config, predictions)
    tn, fp, fn, tp = (
        int(cell) for cell in metrics.confusion(predictions.truth, predictions.decision)
    )
    matrix = [[tn, fp], [fn, tp]]
    samples = [data.samples[data.index[logits.sample_ids[row]]] for row in hard]
    with writing(
        evaluation, kind=Kind.EVALUATION, step="evaluate", config=config, inputs=inputs
    ) as out:
        write_json(out / "eval_report.json", _document(config, judged))
        write_json(out / "confusion.json", {"labels": names, "matrix": matrix})
        _write_metrics(out / "metrics.csv", values)
        _write_hard_examples(out / "hard_examples.csv", hard, samples, predictions, names)
        html = render(
            ReportData(
                class_names=names,
                policies=judged.results,
                hard=_gallery(hard, samples, predictions, names, data),
                counts=data.manifest.summary,
                lineage=inputs,
                targets=config.targets,
                n_bootstrap=config.n_bootstrap,
                promises=judged.promises,
                comparisons=judged.comparisons,
                early_exits=judged.early_exits,
                robustness=judged.robustness,
                students=judged.students,
            )
        )
        (out / "report.html").write_text(html, encoding="utf-8")
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(html, encoding="utf-8")
    scalars = {name: entry["value"] for name, entry in values.items() if entry["value"] is not None}
    return Result(scalars, _roc_points(predictions), list(names), matrix)


def _check(config: EvaluateConfig, logits: Logits, rule: Policy, data: Dataset) -> None:
    """Do logits, policy and dataset belong together? Samples are joined by id."""
    problems = []
    if rule.class_names != logits.class_names:
        problems.append(
            f"policy has class_names {list(rule.class_names)}, logits have"
            f" {list(logits.class_names)}"
        )
    if data.class_names != logits.class_names:
        problems.append(
            f"dataset has class_names {list(data.class_names)}, logits have"
            f" {list(logits.class_names)}"
        )
    if config.positive_class != rule.positive_class:
        problems.append(
            f"positive_class={config.positive_class!r}, but the policy's is {rule.positive_class!r}"
        )
    labels = dict(zip(logits.sample_ids, logits.labels.tolist(), strict=True))
    unknown = [sample_id for sample_id in labels if sample_id not in data.index]
    if unknown:
        problems.append(
            f"{len(unknown)} sample(s) of the logits are not in the dataset, first {unknown[0]}"
        )
    differing = [
        i for i in labels if i in data.index and data.samples[data.index[i]].label != labels[i]
    ]
    if differing:
        problems.append(
            f"{len(differing)} label(s) of the logits differ from the dataset's, first"
            f" {differing[0]}"
        )
    if problems:
        raise ArtifactError("; ".join(problems) + ": take all inputs from one run")
    n_positive = int((logits.labels == logits.class_names.index(config.positive_class)).sum())
    if not 0 < n_positive < len(labels):
        raise DataError(
            f"VAL_TEST has {n_positive} of {config.positive_class!r} among {len(labels)} samples, "
            "an evaluation needs both classes; use more data or a larger test_fraction"
        )


def _class_names(logits: Logits, rule: Policy) -> tuple[str, str]:
    """(everything else, the positive class)."""
    others = [name for name in logits.class_names if name != rule.positive_class]
    return others[0] if len(others) == 1 else f"not {rule.positive_class}", rule.positive_class


def _worst_errors(config: EvaluateConfig, predictions: Predictions) -> list[int]:
    """Rows of the errors with the largest confidence, worst first."""
    wrong = np.flatnonzero(predictions.error)
    worst = wrong[np.argsort(-predictions.confidence[wrong], kind="stable")]
    rows: list[int] = worst[: config.n_hard_examples].tolist()
    return rows


def _document(config: EvaluateConfig, judged: PolicyResults) -> dict[str, Any]:
    predictions = judged.shown.predictions
    policies: dict[str, Any] = {
        kind: {"policy": result.policy.to_json(), "metrics": dict(result.metrics)}
        for kind, result in judged.results.items()
    }
    policies |= {
        p.kind: {"infeasible": p.infeasible} for p in judged.promises if p.infeasible is not None
    }
    return {
        "split": "VAL_TEST",
        "n_samples": len(predictions.truth),
        "n_positive": int(predictions.truth.sum()),
        "n_groups": len(set(predictions.groups)),
        "n_bootstrap": config.n_bootstrap,
        "target_precision": config.target_precision,
        "policy": judged.shown.policy.to_json(),
        "metrics": dict(judged.shown.metrics),
        "policies": policies,
        "against_confidence": {
            comparison.kind: comparison.to_json() for comparison in judged.comparisons
        },
        **(
            {"robustness": {r.kind: r.to_json() for r in judged.robustness}}
            if judged.robustness
            else {}
        ),
        **({"student": dict(judged.students[0].metrics)} if judged.students else {}),
        **(
            {"early_exit": {r.kind: r.to_json() for r in judged.early_exits}}
            if judged.early_exits
            else {}
        ),
    }


def _write_metrics(file: Path, values: Mapping[str, Entry]) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["metric", "value", "low_95", "high_95"])
        for name, entry in values.items():
            writer.writerow([name, entry["value"], *(entry["interval_95"] or ("", ""))])


def _write_hard_examples(
    file: Path,
    rows: Sequence[int],
    samples: Sequence[Sample],
    predictions: Predictions,
    names: tuple[str, str],
) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(
            ["sample_id", "source", "path", "group", "label", "decision", "probability", "margin"]
        )
        for row, sample in zip(rows, samples, strict=True):
            said = names[int(predictions.decision[row])], f"{predictions.probability[row]:.6f}"
            truth, margin = names[int(predictions.truth[row])], f"{predictions.margin[row]:.6f}"
            writer.writerow(
                [sample.sample_id, sample.source, sample.path, sample.group, truth, *said, margin]
            )


def _gallery(
    rows: Sequence[int],
    samples: Sequence[Sample],
    predictions: Predictions,
    names: tuple[str, str],
    data: Dataset,
) -> list[HardExample]:
    images = data.images(
        np.array([data.index[sample.sample_id] for sample in samples], dtype=np.int64)
    )
    return [
        HardExample(
            sample_id=sample.sample_id,
            path=sample.path,
            label=names[int(predictions.truth[row])],
            decision=names[int(predictions.decision[row])],
            probability=float(predictions.probability[row]),
            missed=bool(predictions.truth[row]),
            image=image,
        )
        for row, sample, image in zip(rows, samples, images, strict=True)
    ]


def _roc_points(predictions: Predictions) -> tuple[list[float], list[float], list[float]]:
    """ROC points for the KFP UI, on the probability scale; its JSON has no infinity."""
    fpr, tpr, thresholds = metrics.roc_curve(predictions.truth, predictions.margin)
    # The first point accepts nothing: any threshold above the largest score says so.
    probability = metrics.sigmoid(np.where(np.isfinite(thresholds), thresholds, thresholds[1] + 1))
    kept = thinned(len(fpr), _MAX_ROC_POINTS)
    return fpr[kept].tolist(), tpr[kept].tolist(), probability[kept].tolist()


if __name__ == "__main__":
    main(run, EvaluateConfig)

"""How good is the model under its policy on VAL_TEST, the split that nothing before has seen?"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.evaluate.config import EvaluateConfig
from components.shared.artifacts import write_json, writing
from components.shared.data.dataset import Dataset
from components.shared.errors import ArtifactError, DataError
from components.shared.evaluation import calibration_error, metrics
from components.shared.evaluation.bootstrap import Statistic, intervals
from components.shared.evaluation.logits import Logits, read_logits
from components.shared.evaluation.metrics import Bools, Floats
from components.shared.evaluation.policy import Policy, read_policy
from components.shared.evaluation.report import HardExample, ReportData, render
from components.shared.evaluation.reward import expected_reward
from components.shared.step import InputDir, OutputDir, OutputFile, main

KIND = "Evaluation"
_MAX_ROC_POINTS = 200


@dataclass(frozen=True)
class Result:
    """What the KFP UI shows: scalars, (fpr, tpr, finite thresholds), confusion matrix with a row per true class."""

    metrics: dict[str, float]
    roc: tuple[list[float], list[float], list[float]]
    labels: list[str]
    confusion: list[list[int]]


def run(
    config: EvaluateConfig,
    *,
    val_test_logits: InputDir,
    policy: InputDir,
    dataset: InputDir,
    evaluation: OutputDir,
    report: OutputFile,
) -> Result:
    """Write the Evaluation artifact and the HTML report. Raises LeakageViolationError for any other split's logits."""
    logits, logits_manifest = read_logits(val_test_logits, "VAL_TEST")
    rule, policy_manifest = read_policy(policy)
    data = Dataset.open(dataset)
    _check(config, logits, rule, data)
    truth = logits.labels == logits.class_names.index(config.positive_class)
    margin = rule.margin(logits.logits)
    decision = rule.decide(logits.logits) == "roadwork"
    values = _metrics(config, truth, margin, decision, logits.groups)
    tn, fp, fn, tp = (int(cell) for cell in metrics.confusion(truth, decision))
    names = [f"not {config.positive_class}", config.positive_class]
    if len(logits.class_names) == 2:
        names = [next(n for n in logits.class_names if n != config.positive_class), config.positive_class]
    confusion = {"labels": names, "matrix": [[tn, fp], [fn, tp]]}
    hard = _hard_examples(config, logits, margin, truth, decision)
    document = {
        "split": "VAL_TEST",
        "n_samples": len(truth),
        "n_positive": int(truth.sum()),
        "n_groups": len(set(logits.groups)),
        "policy": rule.to_json(),
        "metrics": values,
    }
    inputs = {"val_test_logits": logits_manifest, "policy": policy_manifest, "dataset": data.manifest}
    with writing(evaluation, kind=KIND, step="evaluate", config=config, inputs=inputs) as out:
        write_json(out / "eval_report.json", document)
        write_json(out / "confusion.json", confusion)
        _write_tables(out, values, hard)
        html = render(
            ReportData(
                document=document,
                confusion=confusion,
                truth=truth,
                margin=margin,
                hard=hard,
                thumbnails=[data.images(np.array([data.index[item.sample_id]]))[0] for item in hard],
                counts=data.manifest.summary,
                lineage={name: manifest.content_digest for name, manifest in inputs.items()},
            )
        )
        (out / "report.html").write_text(html, encoding="utf-8")
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(html, encoding="utf-8")
    scalars = {name: float(entry["value"]) for name, entry in values.items() if isinstance(entry["value"], float)}
    return Result(scalars, _roc_points(truth, margin), names, confusion["matrix"])  # type: ignore[arg-type]


def _check(config: EvaluateConfig, logits: Logits, rule: Policy, data: Dataset) -> None:
    if rule.class_names != logits.class_names:
        raise ArtifactError(f"policy has class_names {list(rule.class_names)}, logits have {list(logits.class_names)}")
    if config.positive_class != rule.positive_class:
        raise ArtifactError(f"positive_class={config.positive_class!r}, but the policy's is {rule.positive_class!r}")
    unknown = [sample_id for sample_id in logits.sample_ids if sample_id not in data.index]
    if unknown:
        raise ArtifactError(f"{len(unknown)} sample(s) of the logits are not in the dataset, first {unknown[0]}")
    labels = [data.samples[data.index[sample_id]].label for sample_id in logits.sample_ids]
    if labels != logits.labels.tolist():
        raise ArtifactError("labels of the logits differ from those of the dataset; they come from different runs")
    if config.positive_class not in {logits.class_names[label] for label in labels}:
        raise DataError(f"VAL_TEST has no sample of {config.positive_class!r}")


def _metrics(
    config: EvaluateConfig, truth: Bools, margin: Floats, decision: Bools, groups: tuple[str, ...]
) -> dict[str, dict[str, object]]:
    """Every metric with its 95 % interval; None where a working point or an interval does not exist."""
    functions = _definitions(config, truth, margin, decision)
    bounds = intervals(functions, groups, config.n_bootstrap, config.seed)
    values: dict[str, dict[str, object]] = {}
    for name, function in functions.items():
        value = function(None)
        exists = value is not None and np.isfinite(value)
        values[name] = {"value": float(value) if exists and value is not None else None, "interval_95": bounds[name]}
    return values


def _definitions(config: EvaluateConfig, truth: Bools, margin: Floats, decision: Bools) -> dict[str, Statistic]:
    probability = metrics.sigmoid(margin)
    correct, confidence = calibration_error.top_label(truth, probability)
    return {
        "accuracy": lambda w: metrics.accuracy(truth, decision, w),
        "balanced_accuracy": lambda w: metrics.balanced_accuracy(truth, decision, w),
        "mcc": lambda w: metrics.mcc(truth, decision, w),
        "f1": lambda w: metrics.f1(truth, decision, w),
        "auroc": lambda w: metrics.auroc(truth, margin, w),
        "average_precision": lambda w: metrics.average_precision(truth, margin, w),
        "ece_top_label": lambda w: calibration_error.ece_top_label(truth, probability, weights=w),
        "ece_positive_class": lambda w: calibration_error.ece_positive_class(truth, probability, weights=w),
        "mce_top_label": lambda w: calibration_error.mce(correct, confidence, weights=w),
        "brier": lambda w: metrics.brier(truth, probability, w),
        "nll": lambda w: metrics.nll(truth, margin, w),
        "coverage_at_precision": lambda w: metrics.coverage_at_precision(truth, margin, config.target_precision, w),
        "expected_reward": lambda w: expected_reward(truth, decision, w),
    }


def _hard_examples(
    config: EvaluateConfig, logits: Logits, margin: Floats, truth: Bools, decision: Bools
) -> list[HardExample]:
    """The errors with the largest confidence in the wrong class, worst first."""
    wrong = np.flatnonzero(truth != decision)
    worst = wrong[np.argsort(-np.abs(margin[wrong]), kind="stable")][: config.n_hard_examples]
    probability = metrics.sigmoid(margin)
    return [
        HardExample(
            sample_id=logits.sample_ids[i],
            path=logits.paths[i],
            label=logits.class_names[int(logits.labels[i])],
            decision=config.positive_class if decision[i] else f"not {config.positive_class}",
            probability=float(probability[i]),
        )
        for i in worst.tolist()
    ]


def _write_tables(out: Path, values: dict[str, dict[str, object]], hard: list[HardExample]) -> None:
    with (out / "metrics.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["metric", "value", "low_95", "high_95"])
        for name, entry in values.items():
            bounds = entry["interval_95"] or ("", "")
            writer.writerow([name, entry["value"], *bounds])  # type: ignore[misc]
    with (out / "hard_examples.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["sample_id", "path", "label", "decision", "probability"])
        writer.writerows([h.sample_id, h.path, h.label, h.decision, f"{h.probability:.6f}"] for h in hard)


def _roc_points(truth: Bools, margin: Floats) -> tuple[list[float], list[float], list[float]]:
    """At most 200 ROC points on the probability scale; KFP stores JSON, which has no infinity."""
    fpr, tpr, thresholds = metrics.roc_curve(truth, margin)
    fpr, tpr = np.nan_to_num(fpr), np.nan_to_num(tpr)
    chosen = np.unique(np.linspace(0, len(fpr) - 1, min(len(fpr), _MAX_ROC_POINTS)).round().astype(np.int64))
    finite = metrics.sigmoid(np.where(np.isfinite(thresholds), thresholds, thresholds[1] + 1))
    return fpr[chosen].tolist(), tpr[chosen].tolist(), finite[chosen].tolist()


if __name__ == "__main__":
    main(run, EvaluateConfig)

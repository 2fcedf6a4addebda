"""Evaluation of the model and its policies on VAL_TEST, the split that no earlier phase reads."""

import shutil
from dataclasses import dataclass

import numpy as np

from components.evaluate.config import EvaluateConfig
from components.evaluate.inputs import check_inputs, read_inputs
from components.evaluate.outputs import REPORT, write_evaluation
from components.evaluate.policies import PolicyResults, evaluate_policies
from components.evaluate.report.plots import thinned
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import writing
from components.shared.contracts.listing import say
from components.shared.contracts.step import InputDir, OutputDir, OutputFile, main
from components.shared.policies.predictions import Predictions
from components.shared.stats import metrics

_MAX_ROC_POINTS = 200  # drawn by the KFP UI without delay


@dataclass(frozen=True)
class Result:
    """Values for the KFP UI.

    Attributes:
        metrics: of the policy that is shown, where they exist.
        roc: false positive rates, true positive rates and finite thresholds; None for a multiclass
            task.
        labels: names of the outcomes.
        confusion: a row for each true class.
    """

    metrics: dict[str, float]
    roc: tuple[list[float], list[float], list[float]] | None
    labels: list[str]
    confusion: list[list[int]]


def run(
    config: EvaluateConfig,
    *,
    val_test_logits: InputDir,
    softmax_policy: InputDir,
    val_test_images: InputDir,
    evaluation: OutputDir,
    report: OutputFile,
    gate_test_logits: InputDir | None = None,
    gate_policy: InputDir | None = None,
    scrc_policy: InputDir | None = None,
) -> Result:
    """Write the Evaluation artifact and the HTML report; `config.policy` is shown in detail.

    Where that policy is infeasible, the report says so and shows another one.

    Raises:
        LeakageViolationError: logits of another split.
        ArtifactError: logits, policies and images do not belong together, or the policy to be
            bundled was not given.
        ConfigError: `slices` names what is no column of the images.
        DataError: VAL_TEST has images of one class only, or the table of stage 2 is wrong or lacks
            an image that a policy defers.
    """
    policies = {"softmax": softmax_policy, "gate": gate_policy, "scrc": scrc_policy}
    inputs = read_inputs(config, policies, val_test_logits, gate_test_logits, val_test_images)
    check_inputs(config, inputs)
    results = evaluate_policies(config, inputs)
    if config.policy in inputs.infeasible:
        say(
            f"policy={config.policy} is to be bundled, but infeasible: the report shows"
            f" {results.shown.policy.kind} in its place, and there will be no bundle"
        )

    with writing(
        evaluation, kind=Kind.EVALUATION, step="evaluate", config=config, inputs=inputs.manifests
    ) as out:
        write_evaluation(out, config, inputs, results)

    report.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(evaluation / REPORT, report)

    return _for_kfp(results)


def _for_kfp(results: PolicyResults) -> Result:
    shown = results.shown
    scalars = {
        name: entry["value"] for name, entry in shown.metrics.items() if entry["value"] is not None
    }
    is_binary = shown.predictions.margin is not None
    return Result(
        metrics=scalars,
        roc=_roc_points(shown.predictions) if is_binary else None,
        labels=list(shown.predictions.outcomes.names),
        confusion=shown.confusion.tolist(),
    )


def _roc_points(predictions: Predictions) -> tuple[list[float], list[float], list[float]]:
    """Return the ROC curve on the probability scale; the JSON of the KFP UI has no infinity."""
    fpr, tpr, thresholds = metrics.roc_curve(predictions.is_positive, predictions.log_odds)
    # The first point flags nothing: any threshold above the largest score does that.
    finite = np.where(np.isfinite(thresholds), thresholds, thresholds[1] + 1)
    probability = metrics.sigmoid(finite)

    rows = thinned(len(fpr), _MAX_ROC_POINTS)
    return fpr[rows].tolist(), tpr[rows].tolist(), probability[rows].tolist()


if __name__ == "__main__":
    main(run, EvaluateConfig)

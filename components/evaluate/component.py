"""KFP interface of evaluate."""

from kfp import dsl

from components.artifact_types import Evaluation, Policy, ValTestImages, ValTestLogits
from components.base_images import CPU
from components.kfp_component import component


@component(CPU)
def evaluate(
    val_test_logits: dsl.Input[ValTestLogits],
    gate_test_logits: dsl.Input[ValTestLogits],
    softmax_policy: dsl.Input[Policy],
    gate_policy: dsl.Input[Policy],
    scrc_policy: dsl.Input[Policy],
    val_test_images: dsl.Input[ValTestImages],
    evaluation: dsl.Output[Evaluation],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    classification: dsl.Output[dsl.ClassificationMetrics],
    config: dict,
) -> None:
    """Evaluate all policies on VAL_TEST with 95 % intervals, the bundled one in detail."""
    from components.evaluate.step import run
    from components.shared.contracts.step import execute

    result = execute(
        run,
        config,
        val_test_logits=val_test_logits,
        gate_test_logits=gate_test_logits,
        softmax_policy=softmax_policy,
        gate_policy=gate_policy,
        scrc_policy=scrc_policy,
        val_test_images=val_test_images,
        evaluation=evaluation,
        report=report,
        metrics=metrics,
        classification=classification,
    )
    for name, value in result.metrics.items():
        metrics.log_metric(name, value)
    if result.roc is not None:
        classification.log_roc_curve(*result.roc)
    classification.log_confusion_matrix(result.labels, result.confusion)

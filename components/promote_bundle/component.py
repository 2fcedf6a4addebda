"""KFP interface of promote_bundle."""

from kfp import dsl

from components.artifact_types import (
    Bundle,
    Evaluation,
    ImageDataset,
    Promotion,
    Splits,
    ValTestLogits,
)
from components.base_images import TRAINER
from components.kfp_component import component


@component(TRAINER)
def promote_bundle(
    bundle: dsl.Input[Bundle],
    val_test_logits: dsl.Input[ValTestLogits],
    gate_test_logits: dsl.Input[ValTestLogits],
    evaluation: dsl.Input[Evaluation],
    dataset: dsl.Input[ImageDataset],
    splits: dsl.Input[Splits],
    promotion: dsl.Output[Promotion],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    config: dict,
) -> None:
    """Compare the bundle with the champion on VAL_TEST, and promote it where it is better."""
    from components.promote_bundle.step import run
    from components.shared.contracts.step import execute

    result = execute(
        run,
        config,
        bundle=bundle,
        val_test_logits=val_test_logits,
        gate_test_logits=gate_test_logits,
        evaluation=evaluation,
        dataset=dataset,
        splits=splits,
        promotion=promotion,
        report=report,
        metrics=metrics,
    )
    for name, value in result.metrics.items():
        metrics.log_metric(name, value)

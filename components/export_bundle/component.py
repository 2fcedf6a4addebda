"""KFP interface of export_bundle."""

from kfp import dsl

from components.artifact_types import (
    Bundle,
    Checkpoint,
    Evaluation,
    ImageDataset,
    Policy,
    Splits,
    ValCalibReference,
    ValTestImages,
)
from components.base_images import TRAINER
from components.kfp_component import component


@component(TRAINER)
def export_bundle(
    checkpoint: dsl.Input[Checkpoint],
    gate_checkpoint: dsl.Input[Checkpoint],
    softmax_policy: dsl.Input[Policy],
    gate_policy: dsl.Input[Policy],
    scrc_policy: dsl.Input[Policy],
    evaluation: dsl.Input[Evaluation],
    val_test_images: dsl.Input[ValTestImages],
    drift_reference: dsl.Input[ValCalibReference],
    bundle: dsl.Output[Bundle],
    config: dict,
    dataset: dsl.Input[ImageDataset] = None,
    splits: dsl.Input[Splits] = None,
) -> None:
    """Write the deployable directory: fused model, one policy, model cards and checksums.

    Args:
        dataset: For the comparison of further formats, as splits.
    """
    from components.export_bundle.step import run
    from components.shared.contracts.step import execute

    execute(
        run,
        config,
        checkpoint=checkpoint,
        gate_checkpoint=gate_checkpoint,
        softmax_policy=softmax_policy,
        gate_policy=gate_policy,
        scrc_policy=scrc_policy,
        evaluation=evaluation,
        val_test_images=val_test_images,
        drift_reference=drift_reference,
        bundle=bundle,
        dataset=dataset,
        splits=splits,
    )

"""KFP interface of predict_logits."""

from kfp import dsl

from components.artifact_types import (
    Checkpoint,
    ImageDataset,
    Splits,
    ValCalibLogits,
    ValCalibReference,
    ValTestImages,
    ValTestLogits,
)
from components.base_images import TRAINER
from components.kfp_component import component


@component(TRAINER)
def predict_logits(
    dataset: dsl.Input[ImageDataset],
    splits: dsl.Input[Splits],
    checkpoint: dsl.Input[Checkpoint],
    val_calib_logits: dsl.Output[ValCalibLogits],
    val_test_logits: dsl.Output[ValTestLogits],
    val_test_images: dsl.Output[ValTestImages],
    drift_reference: dsl.Output[ValCalibReference],
    config: dict,
) -> None:
    """Write the selected model's logits on VAL_CALIB and VAL_TEST, which no earlier phase reads."""
    from components.predict_logits.step import run
    from components.shared.contracts.step import execute

    execute(
        run,
        config,
        dataset=dataset,
        splits=splits,
        checkpoint=checkpoint,
        val_calib_logits=val_calib_logits,
        val_test_logits=val_test_logits,
        val_test_images=val_test_images,
        drift_reference=drift_reference,
    )

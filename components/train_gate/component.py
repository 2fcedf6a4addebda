"""KFP interface of train_gate."""

from kfp import dsl

from components.artifact_types import (
    Checkpoint,
    ImageDataset,
    Splits,
    TrainFeatures,
    ValCalibLogits,
    ValSelectFeatures,
    ValTestLogits,
)
from components.base_images import TRAINER
from components.kfp_component import component


@component(TRAINER)
def train_gate(
    dataset: dsl.Input[ImageDataset],
    splits: dsl.Input[Splits],
    checkpoint: dsl.Input[Checkpoint],
    gate_checkpoint: dsl.Output[Checkpoint],
    val_calib_logits: dsl.Output[ValCalibLogits],
    val_test_logits: dsl.Output[ValTestLogits],
    metrics: dsl.Output[dsl.Metrics],
    measurements: dsl.Output[dsl.HTML],
    config: dict,
    train_features: dsl.Input[TrainFeatures] = None,
    val_select_features: dsl.Input[ValSelectFeatures] = None,
) -> None:
    """Train a gate on the fixed backbone's features; write logits and scores of both splits."""
    from components.shared.contracts.step import execute
    from components.train_gate.step import run

    best = execute(
        run,
        config,
        dataset=dataset,
        splits=splits,
        checkpoint=checkpoint,
        train_features=train_features,
        val_select_features=val_select_features,
        gate_checkpoint=gate_checkpoint,
        val_calib_logits=val_calib_logits,
        val_test_logits=val_test_logits,
        metrics=metrics,
        measurements=measurements,
    )
    for name, value in best.items():
        metrics.log_metric(name, value)

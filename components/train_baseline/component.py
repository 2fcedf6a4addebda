"""KFP interface of train_baseline."""

from kfp import dsl

from components.artifact_types import (
    Backbone,
    Checkpoint,
    ImageDataset,
    Splits,
    TrainFeatures,
    ValSelectFeatures,
    ValSelectLogits,
)
from components.base_images import TRAINER
from components.kfp_component import component


@component(TRAINER)
def train_baseline(
    dataset: dsl.Input[ImageDataset],
    splits: dsl.Input[Splits],
    backbone: dsl.Input[Backbone],
    checkpoint: dsl.Output[Checkpoint],
    val_select_logits: dsl.Output[ValSelectLogits],
    metrics: dsl.Output[dsl.Metrics],
    measurements: dsl.Output[dsl.HTML],
    config: dict,
    mode: str = "",
    train_features: dsl.Input[TrainFeatures] = None,
    val_select_features: dsl.Input[ValSelectFeatures] = None,
) -> None:
    """Train a classifier on TRAIN, select the epoch on VAL_SELECT, write the logits of VAL_SELECT.

    Args:
        config: The step's configuration, from `configure`.
        mode: Adaptation of this task where several are compared; empty: the configuration's.
    """
    from components.shared.contracts.step import execute
    from components.train_baseline.step import run

    best = execute(
        run,
        {**config, "mode": mode} if mode else config,
        dataset=dataset,
        splits=splits,
        backbone=backbone,
        train_features=train_features,
        val_select_features=val_select_features,
        checkpoint=checkpoint,
        val_select_logits=val_select_logits,
        metrics=metrics,
        measurements=measurements,
    )
    for name, value in best.items():
        metrics.log_metric(name, value)

"""KFP interface of tune_training."""

from kfp import dsl

from components.artifact_types import Backbone, ImageDataset, Splits, Tuning
from components.base_images import TRAINER
from components.kfp_component import component


@component(TRAINER)
def tune_training(
    dataset: dsl.Input[ImageDataset],
    splits: dsl.Input[Splits],
    backbone: dsl.Input[Backbone],
    tuning: dsl.Output[Tuning],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    config: dict,
    training: dict,
) -> None:
    """Search the options of a training of backbone and head on TRAIN and VAL_SELECT.

    Args:
        config: The step's configuration, from `configure`.
        training: The configuration of train_baseline, from which the trials start.
    """
    from components.shared.contracts.step import execute
    from components.tune_training.step import run

    found = execute(
        run,
        {**config, "training": training},
        dataset=dataset,
        splits=splits,
        backbone=backbone,
        tuning=tuning,
        report=report,
        metrics=metrics,
    )
    for name, value in found.items():
        metrics.log_metric(name, value)

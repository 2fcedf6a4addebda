"""KFP interface of tune_head."""

from kfp import dsl

from components.artifact_types import TrainFeatures, Tuning, ValSelectFeatures
from components.base_images import TRAINER
from components.kfp_component import component


@component(TRAINER)
def tune_head(
    train_features: dsl.Input[TrainFeatures],
    val_select_features: dsl.Input[ValSelectFeatures],
    tuning: dsl.Output[Tuning],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    config: dict,
    training: dict,
) -> None:
    """Search the options of the head on stored features of TRAIN and VAL_SELECT.

    Args:
        config: The step's configuration, from `configure`.
        training: The configuration of train_baseline, from which the trials start.
    """
    from components.shared.contracts.step import execute
    from components.tune_head.step import run

    found = execute(
        run,
        {**config, "training": training},
        train_features=train_features,
        val_select_features=val_select_features,
        tuning=tuning,
        report=report,
        metrics=metrics,
    )
    for name, value in found.items():
        metrics.log_metric(name, value)

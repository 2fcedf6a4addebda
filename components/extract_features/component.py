"""KFP interface of extract_features."""

from kfp import dsl

from components.artifact_types import (
    Backbone,
    ImageDataset,
    Splits,
    TrainFeatures,
    ValSelectFeatures,
)
from components.base_images import TRAINER
from components.kfp_component import component


@component(TRAINER)
def extract_features(
    dataset: dsl.Input[ImageDataset],
    splits: dsl.Input[Splits],
    backbone: dsl.Input[Backbone],
    train_features: dsl.Output[TrainFeatures],
    val_select_features: dsl.Output[ValSelectFeatures],
    config: dict,
) -> None:
    """Compute the features of TRAIN and VAL_SELECT once, for all heads on the frozen backbone."""
    from components.extract_features.step import run
    from components.shared.contracts.step import execute

    execute(
        run,
        config,
        dataset=dataset,
        splits=splits,
        backbone=backbone,
        train_features=train_features,
        val_select_features=val_select_features,
    )

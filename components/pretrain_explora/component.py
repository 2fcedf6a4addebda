"""KFP interface of pretrain_explora."""

from kfp import dsl

from components.artifact_types import Backbone, TrainImages, TrainLabels
from components.base_images import TRAINER
from components.kfp_component import component


@component(TRAINER)
def pretrain_explora(
    train_images: dsl.Input[TrainImages],
    pretrained: dsl.Input[Backbone],
    adapted: dsl.Output[Backbone],
    metrics: dsl.Output[dsl.Metrics],
    measurements: dsl.Output[dsl.HTML],
    config: dict,
    train_labels: dsl.Input[TrainLabels] = None,
) -> None:
    """Adapt a pretrained backbone to the images of TRAIN; verify the merged result from disk."""
    from components.pretrain_explora.step import run
    from components.shared.contracts.step import execute

    best = execute(
        run,
        config,
        train_images=train_images,
        pretrained=pretrained,
        adapted=adapted,
        metrics=metrics,
        measurements=measurements,
        train_labels=train_labels,
    )
    for name, value in best.items():
        metrics.log_metric(name, value)

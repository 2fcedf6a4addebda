"""KFP interfaces of split_dataset: as extended pre-training needs it, and without its copies.

KFP passes every declared output of a component, so a graph without extended pre-training has a
component without the outputs that only this reads.
"""

from kfp import dsl

from components.artifact_types import ImageDataset, Splits, TrainImages, TrainLabels
from components.base_images import CPU
from components.kfp_component import component


@component(CPU)
def split_dataset(
    dataset: dsl.Input[ImageDataset],
    splits: dsl.Output[Splits],
    train_images: dsl.Output[TrainImages],
    train_labels: dsl.Output[TrainLabels],
    config: dict,
) -> None:
    """Assign every sample to one of four splits: as recorded, new groups stratified by class."""
    from components.shared.contracts.step import execute
    from components.split_dataset.step import run

    execute(
        run,
        config,
        dataset=dataset,
        splits=splits,
        train_images=train_images,
        train_labels=train_labels,
    )


@component(CPU)
def split_dataset_alone(
    dataset: dsl.Input[ImageDataset],
    splits: dsl.Output[Splits],
    config: dict,
) -> None:
    """Assign every sample to one of four splits, and copy no pixels or labels of TRAIN."""
    from components.shared.contracts.step import execute
    from components.split_dataset.step import run

    execute(run, config, dataset=dataset, splits=splits)

"""KFP interface of select_for_labelling."""

from kfp import dsl

from components.artifact_types import LabellingTasks
from components.base_images import TRAINER
from components.kfp_component import component


@component(TRAINER)
def select_for_labelling(
    labelling_tasks: dsl.Output[LabellingTasks],
    metrics: dsl.Output[dsl.Metrics],
    config: dict,
    bundle: str = "",
    images: str = "",
) -> None:
    """Choose the new images whose labels would teach a bundle most, as tasks of Label Studio.

    Args:
        config: Options of the step.
        bundle: Bundle that judges the images, where `config` does not name it.
        images: Address of the new images, where `config` does not name it.
    """
    from components.select_for_labelling.step import run
    from components.shared.contracts.step import execute

    places = {name: value for name, value in (("bundle", bundle), ("images", images)) if value}
    counts = execute(run, {**config, **places}, labelling_tasks=labelling_tasks)
    for name, value in counts.items():
        metrics.log_metric(name, value)

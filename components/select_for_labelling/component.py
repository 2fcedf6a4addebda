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
) -> None:
    """Choose the new images whose labels would teach a bundle most, as tasks of Label Studio."""
    from components.select_for_labelling.step import run
    from components.shared.contracts.step import execute

    counts = execute(run, config, labelling_tasks=labelling_tasks)
    for name, value in counts.items():
        metrics.log_metric(name, value)

"""The pipeline that chooses new images for labelling, for a recurring run."""

from typing import Any

from components.artifact_types import LabellingTasks
from components.select_for_labelling.component import select_for_labelling
from pipelines.one_task import one_task
from pipelines.parameters import Variant
from pipelines.resources import Profile

DESCRIPTION = (
    "Choose the new images whose labels would teach the champion, or another bundle, most."
)


def labelling(profile: Profile, variant: Variant) -> Any:
    """Return the pipeline for the resources of `profile`, as a KFP graph component."""
    return one_task(
        select_for_labelling, "labelling_tasks", LabellingTasks, DESCRIPTION, profile, variant
    )

"""The pipeline that compares new images with a bundle's drift reference, for a recurring run."""

from typing import Any

from components.artifact_types import Drift
from components.detect_drift.component import detect_drift
from pipelines.one_task import one_task
from pipelines.parameters import Variant
from pipelines.resources import Profile

DESCRIPTION = "Compare new images with the drift reference of the champion, or of another bundle."


def drift(profile: Profile, variant: Variant) -> Any:
    """Return the pipeline for the resources of `profile`, as a KFP graph component."""
    return one_task(detect_drift, "drift", Drift, DESCRIPTION, profile, variant)

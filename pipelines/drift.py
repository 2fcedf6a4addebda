"""The pipeline that compares new images with a bundle's drift reference, for a recurring run.

One task, which is never cached: what is below the address changes, and only reading it says so.
"""

from typing import Any

from kfp import dsl

from components.artifact_types import Drift
from components.detect_drift.component import detect_drift
from components.detect_drift.config import CHAMPION, DriftForm
from pipelines import resources
from pipelines.names import DRIFT, PIPELINES
from pipelines.parameters import Variant
from pipelines.resources import Profile
from pipelines.sources import phase_image

DESCRIPTION = "Compare new images with the drift reference of the champion, or of another bundle."


def drift(profile: Profile, variant: Variant = Variant(pipeline=DRIFT)) -> Any:  # noqa: B008
    """Return the pipeline for the resources of `profile`, as a KFP graph component.

    It has one graph: `variant` has no further choices.
    """
    del variant

    def pipeline(
        reference: str = CHAMPION,
        images: str = "",
        options: dict = {},  # noqa: B006 - KFP's default of a parameter
    ) -> Drift:
        task = detect_drift(config=options, reference=reference, images=images)
        task.set_container_image(phase_image("detect_drift", profile.registry))
        task.set_caching_options(enable_caching=False)
        resources.with_store(resources.heavy(task, profile), profile, "data")
        found: Drift = task.outputs["drift"]
        return found

    helps = [
        f"    {name}: {field.metadata['help']}"
        for name, field in DriftForm.__dataclass_fields__.items()
    ]
    pipeline.__doc__ = "\n".join([DESCRIPTION, "", "Args:", *helps])
    return dsl.pipeline(name=PIPELINES[DRIFT], description=DESCRIPTION)(pipeline)

"""The pipeline that scores all images below an address, for one run or a recurring one."""

from typing import Any

from components.artifact_types import Scores
from components.import_bundle.component import import_bundle
from components.score_images.component import score_images
from pipelines.one_task import never_cached, standalone
from pipelines.parameters import Variant
from pipelines.resources import Profile

DESCRIPTION = "Score all images below an address by the champion, or by another bundle."


def score(profile: Profile, variant: Variant) -> Any:
    """Return the pipeline for the resources of `profile`, as a KFP graph component."""

    def wire(form: dict[str, Any]) -> Any:
        imported = never_cached(
            import_bundle,
            profile,
            config={},
            bundle=form["bundle"],
            bundle_registry=form["bundle_registry"],
        )
        scored = never_cached(
            score_images,
            profile,
            config={},
            bundle=imported.outputs["imported"],
            images=form["images"],
            form=form["form"],
        )
        return scored.outputs["scores"]

    return standalone(wire, Scores, DESCRIPTION, variant)

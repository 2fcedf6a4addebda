"""The recurring pipeline: stage 1, and the promotion of its bundle where it is better.

Cache keys belong to a pipeline's name, so nothing of a run of stage 1 is a hit here. `configure`
reads the champion and the lineage from the registry: on a night without new data only the steps
whose options those change run again.
"""

from typing import Any, NamedTuple

from kfp import dsl

from components.artifact_types import Bundle, Evaluation, Promotion
from components.promote_bundle.component import promote_bundle
from pipelines import resources
from pipelines.names import CONTINUOUS, PIPELINES
from pipelines.parameters import Variant
from pipelines.resources import Profile
from pipelines.stage1 import Stage1, set_step, with_form

DESCRIPTION = "Train a bundle on the data of today, and promote it where it beats the champion."


class Outputs(NamedTuple):
    """What a run leaves."""

    bundle: Bundle
    evaluation: Evaluation
    report: dsl.HTML
    promotion: Promotion
    promotion_report: dsl.HTML


def continuous(profile: Profile, variant: Variant) -> Any:
    """Return the pipeline of `variant` for the resources of `profile`, as a KFP graph component."""
    stage1 = Stage1(profile, variant)

    def wire(form: dict[str, Any]) -> Outputs:
        made = stage1.wire(form)
        promote = promote_bundle(
            bundle=made.delivered["bundle"],
            evaluation=made.delivered["evaluation"],
            val_test_logits=made.trained["val_test_logits"],
            gate_test_logits=made.trained["gate_test_logits"],
            dataset=made.dataset,
            splits=made.splits,
            config=made.config["promote_bundle"],
        )
        resources.with_registry(set_step(resources.heavy, promote, profile), profile)

        return Outputs(
            made.delivered["bundle"],
            made.delivered["evaluation"],
            made.delivered["report"],
            promote.outputs["promotion"],
            promote.outputs["report"],
        )

    name = PIPELINES[CONTINUOUS]
    return dsl.pipeline(name=name, description=DESCRIPTION)(
        with_form(wire, variant, Outputs, DESCRIPTION)
    )

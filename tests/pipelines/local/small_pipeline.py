"""A pipeline of small steps, which kfp.local runs in a second; it stands in for stage 1."""

from typing import Any, NamedTuple

from kfp import dsl

from components.artifact_types import Bundle, Evaluation
from tests.pipelines.local.small_components import checking, evaluating, exporting


class Outputs(NamedTuple):
    """What a run leaves, as of stage 1."""

    bundle: Bundle
    evaluation: Evaluation


@dsl.pipeline(name="streetvision-stage1")
def small(check: dict, evaluate: dict, export: dict) -> Outputs:
    """Check, evaluate, export."""
    first = checking(config=check)
    first.set_caching_options(enable_caching=False)
    evaluated = evaluating(config=evaluate).after(first)
    exported = exporting(evaluation=evaluated.outputs["evaluation"], config=export)
    return Outputs(exported.outputs["bundle"], evaluated.outputs["evaluation"])


def values(**ends: str) -> dict[str, Any]:
    """Return the run's parameters: how each of its steps ends."""
    return {step: {"end": ends.get(step, "")} for step in ("check", "evaluate", "export")}

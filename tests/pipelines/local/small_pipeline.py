"""A pipeline of small steps, which kfp.local runs in a second; it stands in for stage 1."""

from typing import Any, NamedTuple

from kfp import dsl

from components.artifact_types import Bundle, Evaluation


@dsl.component(base_image="python", install_kfp_package=False)
def checking(config: dict) -> None:
    """Run `check`."""
    from components.shared.contracts.step import execute
    from tests.pipelines.local.small_steps import check

    execute(check, config)


@dsl.component(base_image="python", install_kfp_package=False)
def evaluating(evaluation: dsl.Output[Evaluation], config: dict) -> None:
    """Run `evaluate`."""
    from components.shared.contracts.step import execute
    from tests.pipelines.local.small_steps import evaluate

    execute(evaluate, config, evaluation=evaluation)


@dsl.component(base_image="python", install_kfp_package=False)
def exporting(bundle: dsl.Output[Bundle], evaluation: dsl.Input[Evaluation], config: dict) -> None:
    """Run `export`."""
    from components.shared.contracts.step import execute
    from tests.pipelines.local.small_steps import export

    execute(export, config, evaluation=evaluation, bundle=bundle)


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

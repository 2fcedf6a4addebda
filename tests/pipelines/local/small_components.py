"""The components of the small pipeline, in a module of their own: a step imports it."""

from kfp import dsl

from components.artifact_types import Bundle, Evaluation
from components.kfp_component import component


@component("python")
def checking(config: dict) -> None:
    """Run `check`."""
    from components.shared.contracts.step import execute
    from tests.pipelines.local.small_steps import check

    execute(check, config)


@component("python")
def evaluating(evaluation: dsl.Output[Evaluation], config: dict) -> None:
    """Run `evaluate`."""
    from components.shared.contracts.step import execute
    from tests.pipelines.local.small_steps import evaluate

    execute(evaluate, config, evaluation=evaluation)


@component("python")
def exporting(bundle: dsl.Output[Bundle], evaluation: dsl.Input[Evaluation], config: dict) -> None:
    """Run `export`."""
    from components.shared.contracts.step import execute
    from tests.pipelines.local.small_steps import export

    execute(export, config, evaluation=evaluation, bundle=bundle)

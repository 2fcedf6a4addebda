"""KFP interface of detect_drift."""

from kfp import dsl

from components.artifact_types import Drift
from components.base_images import TRAINER
from components.kfp_component import component


@component(TRAINER)
def detect_drift(
    drift: dsl.Output[Drift],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    config: dict,
    reference: str = "",
    images: str = "",
) -> None:
    """Compare new images with a bundle's drift reference, by one test with a false-alarm rate.

    Args:
        config: Options of the step.
        reference: Bundle, where `config` does not name it.
        images: Address of the new images, where `config` does not name it.
    """
    from components.detect_drift.step import run
    from components.shared.contracts.step import execute

    places = {
        name: value for name, value in (("reference", reference), ("images", images)) if value
    }
    result = execute(run, {**config, **places}, drift=drift, report=report, metrics=metrics)
    for name, value in result.metrics.items():
        metrics.log_metric(name, value)

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
) -> None:
    """Compare new images with a bundle's drift reference, by one test with a false-alarm rate."""
    from components.detect_drift.step import run
    from components.shared.contracts.step import execute

    result = execute(run, config, drift=drift, report=report, metrics=metrics)
    for name, value in result.metrics.items():
        metrics.log_metric(name, value)

"""KFP interface of score_images."""

from kfp import dsl

from components.artifact_types import Bundle, Scores
from components.base_images import TRAINER
from components.kfp_component import component


@component(TRAINER)
def score_images(
    bundle: dsl.Input[Bundle],
    scores: dsl.Output[Scores],
    metrics: dsl.Output[dsl.Metrics],
    config: dict,
    images: str = "",
    form: str = "",
) -> None:
    """Score all images below an address by a bundle, as one Parquet table.

    Args:
        config: Options of the step.
        images: Address of the images, where `config` does not name it.
        form: Form of the bundle that answers, where `config` does not name it.
    """
    from components.score_images.step import run
    from components.shared.contracts.step import execute

    places = {name: value for name, value in (("images", images), ("form", form)) if value}
    found = execute(run, {**config, **places}, bundle=bundle, scores=scores, metrics=metrics)
    for name in ("n_images", "n_rejected", "n_deferred"):
        metrics.log_metric(name, float(found[name]))

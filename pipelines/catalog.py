"""The graph of each pipeline of the project, by its key in `names.PIPELINES`."""

from collections.abc import Callable
from typing import Any

from pipelines.continuous import continuous
from pipelines.drift import drift
from pipelines.labelling import labelling
from pipelines.names import CONTINUOUS, DRIFT, LABELLING, SCORE, STAGE1, TUNE, TUNE_TRAINING
from pipelines.parameters import Variant
from pipelines.resources import Profile
from pipelines.score import score
from pipelines.stage1 import stage1
from pipelines.tune import tune, tune_training

_GRAPHS: dict[str, Callable[[Profile, Variant], Any]] = {
    STAGE1: stage1,
    CONTINUOUS: continuous,
    TUNE: tune,
    TUNE_TRAINING: tune_training,
    DRIFT: drift,
    LABELLING: labelling,
    SCORE: score,
}


def pipeline_of(profile: Profile, variant: Variant) -> Any:
    """Return the pipeline that `variant` names, as a KFP graph component."""
    return _GRAPHS[variant.pipeline](profile, variant)


def images_of(profile: Profile, variant: Variant) -> tuple[str, ...]:
    """Return the references of the images that the steps of a pipeline run in, sorted."""
    executors = pipeline_of(profile, variant).pipeline_spec.deployment_spec["executors"]
    return tuple(sorted({str(entry["container"]["image"]) for entry in executors.values()}))

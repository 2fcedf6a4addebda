"""The pipelines that search the classifier's options: over heads, and over whole trainings.

Both end with a recipe, the parameters of a run of stage 1. The first gives its search two artifacts
of features and nothing else, so that no other split can be read.
"""

from typing import Any, NamedTuple

from kfp import dsl

from components.artifact_types import Tuning
from components.extract_features.component import extract_features
from components.tune_head.component import tune_head as head_component
from components.tune_training.component import tune_training as training_component
from pipelines import resources
from pipelines.names import PIPELINES, TUNE, TUNE_TRAINING
from pipelines.parameters import Variant
from pipelines.resources import Profile
from pipelines.stage1 import prepare_data, set_step, with_form

_OF_HEADS = "Search the options of the head on the features of a frozen backbone."
_OF_TRAININGS = "Search the options of a training of backbone and head."


class Outputs(NamedTuple):
    """What a search leaves."""

    tuning: Tuning
    report: dsl.HTML


def tune(profile: Profile, variant: Variant) -> Any:
    """Return the pipeline that searches over heads, as a KFP graph component."""

    def wire(form: dict[str, Any]) -> Outputs:
        data = prepare_data(form, profile, variant)
        features = extract_features(
            dataset=data.dataset,
            splits=data.splits,
            backbone=data.backbone,
            config=data.config["extract_features"],
        )
        set_step(resources.training, features, profile)

        search = head_component(
            train_features=features.outputs["train_features"],
            val_select_features=features.outputs["val_select_features"],
            config=data.config["tune_head"],
            training=data.config["train_baseline"],
        )
        set_step(resources.training, search, profile)
        return Outputs(search.outputs["tuning"], search.outputs["report"])

    return dsl.pipeline(name=PIPELINES[TUNE], description=_OF_HEADS)(
        with_form(wire, variant, Outputs, _OF_HEADS)
    )


def tune_training(profile: Profile, variant: Variant) -> Any:
    """Return the pipeline that searches over trainings, as a KFP graph component."""

    def wire(form: dict[str, Any]) -> Outputs:
        data = prepare_data(form, profile, variant)
        search = training_component(
            dataset=data.dataset,
            splits=data.splits,
            backbone=data.backbone,
            config=data.config["tune_training"],
            training=data.config["train_baseline"],
        )
        set_step(resources.training, search, profile)
        return Outputs(search.outputs["tuning"], search.outputs["report"])

    return dsl.pipeline(name=PIPELINES[TUNE_TRAINING], description=_OF_TRAININGS)(
        with_form(wire, variant, Outputs, _OF_TRAININGS)
    )

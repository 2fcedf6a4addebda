"""Searches the options of a head on stored features; no other split is among its inputs."""

import dataclasses
from collections.abc import Sequence

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import writing
from components.shared.contracts.errors import ArtifactError
from components.shared.contracts.step import InputDir, OutputDir, OutputFile, main
from components.shared.data.features import Features, open_features, read_labels
from components.shared.training.classifier.views import views_of
from components.shared.training.search.result import result_of, write_page, write_result
from components.shared.training.session.training_session import TrainingSession
from components.tune_head.config import TuneHeadConfig

STEP = "tune_head"


def run(
    config: TuneHeadConfig,
    *,
    train_features: InputDir,
    val_select_features: InputDir,
    tuning: OutputDir,
    report: OutputFile | None = None,
) -> dict[str, float]:
    """Train one head after the other; write the best options as a recipe, best.yaml.

    If interrupted and started again with the same inputs, the search goes on after the last
    finished trial, and ends with the same best.

    Args:
        config: The step's configuration.
        train_features: Features of TRAIN, with labels.
        val_select_features: Features of VAL_SELECT, with labels.
        tuning: Recipe, trials, and what the maximum overstates.
        report: Page (HTML) of the same.

    Returns:
        Metrics of the best trial.

    Raises:
        ArtifactError: The features are of different extractions, empty, or without labels.
    """
    # Heads train within a second: processes that wait for each other would only be slower.
    config = dataclasses.replace(
        config, n_processes=config.n_processes or 1, training=config.base().to_json()
    )
    sources = {"train_features": train_features, "val_select_features": val_select_features}
    session = TrainingSession(config, step=STEP, inputs=sources, beside=tuning)
    session.raise_recorded_failure()

    train, of_train = open_features(train_features, "TRAIN")
    select, of_select = open_features(val_select_features, "VAL_SELECT")
    labels = read_labels(train_features, train), read_labels(val_select_features, select)
    config.base().check_training(labels[0].class_names)
    _check_views(config, train, labels[0].class_names)
    inputs = {"train_features": of_train, "val_select_features": of_select}

    with session.run("components.tune_head.search", inputs) as work:
        result = result_of(config, work, labels[1])
        with writing(tuning, kind=Kind.TUNING, step=STEP, config=config, inputs=inputs) as out:
            write_result(out, config, result)
        if report is not None:
            write_page(report, config, result)

    return result.metrics


def _check_views(config: TuneHeadConfig, features: Features, class_names: Sequence[str]) -> None:
    """Raise ArtifactError where images are cut into other views than the training asks for."""
    views, of_image = views_of(config.base(), class_names), features.shape[1:-1]
    if of_image != (() if views is None else (views.count,)):
        raise ArtifactError(
            f"the features are of {of_image[0] if of_image else 1} views, the training has"
            f" {1 if views is None else views.count}; extract the features of this run"
        )


if __name__ == "__main__":
    main(run, TuneHeadConfig)

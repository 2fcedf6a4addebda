"""Training of a classifier in one mode, and its logits on VAL_SELECT."""

import shutil
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from components.shared.contracts.adaptations import FROZEN
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import Manifest, verify_dir, writing
from components.shared.contracts.documents import read_object
from components.shared.contracts.errors import ArtifactError
from components.shared.contracts.options import InputConfig
from components.shared.contracts.step import InputDir, OutputDir, OutputFile, main
from components.shared.data.dataset import Dataset
from components.shared.data.features import FeatureRecipe, open_features
from components.shared.data.splits import read_splits, refuse_empty
from components.shared.training.loop.conformal_batches import check_conformal
from components.shared.training.session.outputs import write_measurements, write_split_logits
from components.shared.training.session.training_session import TrainingSession
from components.train_baseline.config import TrainBaselineConfig

STEP = "train_baseline"


def run(
    config: TrainBaselineConfig,
    *,
    dataset: InputDir,
    splits: InputDir,
    backbone: InputDir,
    checkpoint: OutputDir,
    val_select_logits: OutputDir,
    measurements: OutputFile | None = None,
    train_features: InputDir | None = None,
    val_select_features: InputDir | None = None,
) -> dict[str, float]:
    """Train through torchrun; write the checkpoint and its logits on VAL_SELECT.

    If interrupted and started again with the same inputs, the step resumes at its last checkpoint
    and writes the same bytes.

    Args:
        config: The step's configuration.
        dataset: The images.
        splits: The splits of the dataset.
        backbone: The pretrained backbone.
        checkpoint: The trained classifier.
        val_select_logits: Its logits on VAL_SELECT.
        measurements: Page (HTML) of what the training took of the machine.
        train_features: The backbone's features of TRAIN, which mode=frozen reads; computed here
            where they are not given, and not read in other modes.
        val_select_features: The same of VAL_SELECT.

    Returns:
        Metrics of the best epoch.
    """
    sources = {"dataset": dataset, "splits": splits, "backbone": backbone}
    if config.mode == FROZEN and train_features is not None and val_select_features is not None:
        sources |= {"train_features": train_features, "val_select_features": val_select_features}
    training = TrainingSession(config, step=STEP, inputs=sources, beside=checkpoint)
    training.raise_recorded_failure()

    data, assignment = Dataset.open(dataset), read_splits(splits)
    base = verify_dir(backbone, Kind.BACKBONE)
    config.check_training(data.class_names)
    refuse_empty(data, assignment)
    check_conformal(config, data, assignment)

    inputs = {"dataset": data.manifest, "splits": assignment.manifest, "backbone": base}
    inputs |= _features(config, sources, inputs)
    with training.run("components.train_baseline.train", inputs) as work:
        write_measurements(measurements, work)
        summary = read_object(work / "training.json", dict[str, Any])
        with writing(
            checkpoint,
            kind=Kind.CHECKPOINT,
            step=STEP,
            config=config,
            inputs=inputs,
            summary=summary,
        ) as out:
            shutil.copytree(work / "checkpoint", out, dirs_exist_ok=True)

        write_split_logits(
            val_select_logits,
            "VAL_SELECT",
            work,
            data,
            assignment,
            step=STEP,
            config=config,
            inputs=inputs,
        )

        return {name: float(value) for name, value in summary["best_metrics"].items()}


def _features(
    config: TrainBaselineConfig, sources: Mapping[str, Path], inputs: Mapping[str, Manifest]
) -> dict[str, Manifest]:
    """Return the manifests of the features that are read, which have to be of these inputs.

    Raises ArtifactError for features of another backbone, of other data, or of other options.
    """
    if "train_features" not in sources:
        return {}

    recipe = FeatureRecipe.of(config)
    found = {}
    for split, name, wanted in (
        ("TRAIN", "train_features", recipe),
        ("VAL_SELECT", "val_select_features", recipe.unaugmented()),
    ):
        features, found[name] = open_features(sources[name], split)
        problems = features.problems(found[name], inputs, wanted)
        problems += _seen_otherwise(config, found[name])
        if problems:
            raise ArtifactError(
                f"{sources[name]}: {'; '.join(problems)}; extract the features of this run"
            )

    return found


def _seen_otherwise(config: TrainBaselineConfig, features: Manifest) -> list[str]:
    """Return how the features' images were seen in another way than the classifier sees them."""
    asked = {field.name: field.default for field in fields(InputConfig)}
    made = {name: features.config.get(name, default) for name, default in asked.items()}
    return [
        f"{name}={value}, not {getattr(config, name)}"
        for name, value in made.items()
        if value != getattr(config, name)
    ]


if __name__ == "__main__":
    main(run, TrainBaselineConfig)

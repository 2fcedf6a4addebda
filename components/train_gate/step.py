"""Training of a gate, and the logits and gate scores of VAL_CALIB and VAL_TEST."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import read_manifest, verify_dir, writing
from components.shared.contracts.documents import read_object
from components.shared.contracts.listing import say
from components.shared.contracts.step import InputDir, OutputDir, OutputFile, main
from components.shared.data.dataset import Dataset
from components.shared.data.features import FeatureRecipe, open_features
from components.shared.data.splits import read_splits, refuse_foreign
from components.shared.training.loop.conformal_batches import check_conformal
from components.shared.training.session.outputs import write_measurements, write_split_logits
from components.shared.training.session.training_session import TrainingSession
from components.train_gate.config import TrainGateConfig

STEP = "train_gate"
_FEATURES = {"train_features": "TRAIN", "val_select_features": "VAL_SELECT"}


def run(
    config: TrainGateConfig,
    *,
    dataset: InputDir,
    splits: InputDir,
    checkpoint: InputDir,
    gate_checkpoint: OutputDir,
    val_calib_logits: OutputDir,
    val_test_logits: OutputDir,
    measurements: OutputFile | None = None,
    train_features: InputDir | None = None,
    val_select_features: InputDir | None = None,
) -> dict[str, float]:
    """Train through torchrun; write the checkpoint with its gate, and both logits artifacts.

    If interrupted and started again with the same inputs, the step resumes at its last checkpoint
    and writes the same bytes.

    Args:
        config: The step's configuration.
        dataset: The images.
        splits: The splits of the dataset.
        checkpoint: The trained classifier.
        gate_checkpoint: The classifier with the gate.
        val_calib_logits: Logits and gate scores of VAL_CALIB.
        val_test_logits: Logits and gate scores of VAL_TEST.
        measurements: Page (HTML) of what the training took of the machine.
        train_features: Features of TRAIN, which are read where the classifier was trained on them
            and the options agree; else the step computes its own.
        val_select_features: The same of VAL_SELECT.

    Returns:
        Metrics of the best epoch.

    Raises:
        ArtifactError: Checkpoint or splits were made from another dataset.
    """
    sources = {"dataset": dataset, "splits": splits, "checkpoint": checkpoint}
    if train_features is not None and val_select_features is not None:
        given = {"train_features": train_features, "val_select_features": val_select_features}
        sources |= _usable(config, checkpoint, given)
    training = TrainingSession(config, step=STEP, inputs=sources, beside=gate_checkpoint)
    training.raise_recorded_failure()
    data, assignment, base = (
        Dataset.open(dataset),
        read_splits(splits),
        verify_dir(checkpoint, Kind.CHECKPOINT),
    )
    config.check_training(data.class_names)

    refuse_foreign(data, assignment, base)
    check_conformal(config, data, assignment)

    inputs = {"dataset": data.manifest, "splits": assignment.manifest, "checkpoint": base}
    inputs |= {
        name: open_features(sources[name], split)[1]
        for name, split in _FEATURES.items()
        if name in sources
    }
    with training.run("components.train_gate.train", inputs) as work:
        write_measurements(measurements, work)
        summary = read_object(work / "training.json", dict[str, Any])
        with writing(
            gate_checkpoint,
            kind=Kind.CHECKPOINT,
            step=STEP,
            config=config,
            inputs=inputs,
            summary=summary,
        ) as out:
            shutil.copytree(work / "checkpoint", out, dirs_exist_ok=True)

        for split, path in (("VAL_CALIB", val_calib_logits), ("VAL_TEST", val_test_logits)):
            write_split_logits(
                path, split, work, data, assignment, step=STEP, config=config, inputs=inputs
            )

        return {name: float(value) for name, value in summary["best_metrics"].items()}


def _usable(
    config: TrainGateConfig, checkpoint: Path, given: Mapping[str, Path]
) -> Mapping[str, Path]:
    """Return the features if they are what the gate learns from, else nothing, and say why.

    The classifier was trained on them, so its backbone is theirs; and the gate's options ask for
    the same augmentations.
    """
    found = {
        name: open_features(path, _FEATURES[name], hashed=False) for name, path in given.items()
    }
    learnt = read_manifest(checkpoint).inputs
    if any(learnt.get(name) != manifest.content_digest for name, (_, manifest) in found.items()):
        say("the classifier was not trained on the given features: the step computes its own")
        return {}

    recipe = found["train_features"][0].recipe
    differences = recipe.differences(FeatureRecipe.of(config)) if recipe is not None else []
    if differences:
        say(f"the given features have {'; '.join(differences)}: the step computes its own")
        return {}

    return given


if __name__ == "__main__":
    main(run, TrainGateConfig)

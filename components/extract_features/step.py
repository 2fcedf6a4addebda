"""Features of TRAIN and VAL_SELECT by a frozen backbone, computed once for all heads.

One artifact for each split, of a type of its own, so that what trains or searches heads cannot
reach VAL_CALIB or VAL_TEST. Where the run trains the backbone too, nobody reads features: both
artifacts are empty, and no process is started.
"""

import shutil
from pathlib import Path

from components.extract_features.config import ExtractFeaturesConfig
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import Manifest, read_manifest, verify_dir, writing
from components.shared.contracts.listing import say
from components.shared.contracts.step import InputDir, OutputDir, main
from components.shared.data.dataset import Dataset
from components.shared.data.features import write_header
from components.shared.data.splits import read_splits, refuse_empty
from components.shared.training.session.training_session import TrainingSession

STEP = "extract_features"


def run(
    config: ExtractFeaturesConfig,
    *,
    dataset: InputDir,
    splits: InputDir,
    backbone: InputDir,
    train_features: OutputDir,
    val_select_features: OutputDir,
) -> None:
    """Compute both splits' features through torchrun, shard by shard, and write them.

    If interrupted and started again with the same inputs, the step goes on at the first shard that
    is missing, and writes the same bytes.

    Args:
        config: The step's configuration.
        dataset: The images.
        splits: The splits of the dataset.
        backbone: The pretrained backbone.
        train_features: Features of TRAIN under several augmentations.
        val_select_features: Features of VAL_SELECT.

    Raises:
        PermanentError: A feature is not finite, or too large for float16.
    """
    outputs = {"TRAIN": train_features, "VAL_SELECT": val_select_features}
    sources = {"dataset": dataset, "splits": splits, "backbone": backbone}
    if not config.needed:
        inputs = {name: read_manifest(path) for name, path in sources.items()}
        for split, path in outputs.items():
            _write(config, split, path, None, inputs)
        say("the backbone is trained, so nobody reads features: both artifacts are empty")
        return

    session = TrainingSession(config, step=STEP, inputs=sources, beside=train_features)
    session.raise_recorded_failure()
    data, assignment = Dataset.open(dataset), read_splits(splits)
    inputs = {
        "dataset": data.manifest,
        "splits": assignment.manifest,
        "backbone": verify_dir(backbone, Kind.BACKBONE),
    }
    refuse_empty(data, assignment)

    with session.run("components.extract_features.extract", inputs) as work:
        for split, path in outputs.items():
            _write(config, split, path, work / split, inputs)


def _write(
    config: ExtractFeaturesConfig,
    split: str,
    path: Path,
    found: Path | None,
    inputs: dict[str, Manifest],
) -> None:
    """Write one split's artifact from the files that the ranks left; None: an empty one."""
    with writing(
        path,
        kind=Kind.features_of(split),
        step=STEP,
        config=config,
        inputs=inputs,
        split=split,
    ) as out:
        if found is None:
            write_header(out, split, None)
        else:
            for entry in found.iterdir():
                shutil.move(entry, out)


if __name__ == "__main__":
    main(run, ExtractFeaturesConfig)

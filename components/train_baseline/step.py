"""Training of a classifier in one mode, and its logits on VAL_SELECT."""

import shutil
from typing import Any

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import verify_dir, writing
from components.shared.contracts.documents import read_object
from components.shared.contracts.errors import DataError
from components.shared.contracts.step import InputDir, OutputDir, OutputFile, main
from components.shared.data.dataset import Dataset
from components.shared.data.splits import SPLITS, Splits, read_splits
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

    Returns:
        Metrics of the best epoch.
    """
    sources = {"dataset": dataset, "splits": splits, "backbone": backbone}
    training = TrainingSession(config, step=STEP, inputs=sources, beside=checkpoint)
    training.raise_recorded_failure()

    data, assignment = Dataset.open(dataset), read_splits(splits)
    base = verify_dir(backbone, Kind.BACKBONE)
    _check(config, data, assignment)

    inputs = {"dataset": data.manifest, "splits": assignment.manifest, "backbone": base}
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


def _check(config: TrainBaselineConfig, data: Dataset, assignment: Splits) -> None:
    """Refuse what can be refused before a process is started or a model is loaded."""
    config.check_training(data.class_names)

    unknown = sorted(set(assignment.of) ^ set(data.index))
    if unknown:
        raise DataError(
            f"splits and dataset differ in {len(unknown)} sample(s), first {unknown[0]}: rerun the"
            " split"
        )

    empty = [split for split in SPLITS if not assignment.ids(split)]
    if empty:
        raise DataError(f"split(s) {', '.join(empty)} are empty")

    check_conformal(config, data, assignment)


if __name__ == "__main__":
    main(run, TrainBaselineConfig)

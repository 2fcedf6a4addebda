"""The selected model's logits on VAL_CALIB and VAL_TEST, which no earlier phase reads."""

from components.predict_logits.config import PredictLogitsConfig
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import verify_dir, working
from components.shared.contracts.step import InputDir, OutputDir, main
from components.shared.data.dataset import Dataset
from components.shared.data.splits import read_splits, refuse_foreign
from components.shared.training.session.outputs import write_split_logits
from components.shared.training.session.restarts import run_module
from components.shared.vision.classifier_spec import read_spec

STEP = "predict_logits"


def run(
    config: PredictLogitsConfig,
    *,
    dataset: InputDir,
    splits: InputDir,
    checkpoint: InputDir,
    val_calib_logits: OutputDir,
    val_test_logits: OutputDir,
) -> None:
    """Predict through torchrun and write both logits artifacts.

    If interrupted, the step starts from the beginning: prediction has no checkpoints.

    Args:
        config: The step's configuration.
        dataset: The images.
        splits: The splits of the dataset.
        checkpoint: The selected model.
        val_calib_logits: Its logits on VAL_CALIB.
        val_test_logits: Its logits on VAL_TEST.

    Raises:
        ArtifactError: Checkpoint or splits were made from another dataset.
    """
    data, assignment = Dataset.open(dataset), read_splits(splits)
    base = verify_dir(checkpoint, Kind.CHECKPOINT)
    refuse_foreign(data, assignment, base)
    inputs = {"dataset": data.manifest, "splits": assignment.manifest, "checkpoint": base}
    views = read_spec(checkpoint).views

    with working(val_calib_logits) as work:
        paths = {"dataset": dataset, "splits": splits, "checkpoint": checkpoint}
        run_module("components.predict_logits.predict", config, paths, work, verified=inputs)

        for split, path in (("VAL_CALIB", val_calib_logits), ("VAL_TEST", val_test_logits)):
            write_split_logits(
                path,
                split,
                work,
                data,
                assignment,
                step=STEP,
                config=config,
                inputs=inputs,
                views=views,
            )


if __name__ == "__main__":
    main(run, PredictLogitsConfig)

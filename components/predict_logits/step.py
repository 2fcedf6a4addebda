"""Logits of the chosen model on VAL_CALIB and VAL_TEST."""

from components.predict_logits.config import PredictLogitsConfig
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import verify_dir, working
from components.shared.contracts.step import InputDir, OutputDir, main
from components.shared.data.dataset import Dataset
from components.shared.data.splits import read_splits, refuse_foreign
from components.shared.training.session.outputs import write_split_logits
from components.shared.training.session.restarts import run_module
from components.shared.vision.view_spec import read_views

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
    """Predict through torchrun and write both logits artifacts; interrupted, it begins again.

    Raises ArtifactError where checkpoint and splits were made from another dataset.
    """
    data, assignment, base = (
        Dataset.open(dataset),
        read_splits(splits),
        verify_dir(checkpoint, Kind.CHECKPOINT),
    )
    refuse_foreign(data, assignment, base)
    inputs = {"dataset": data.manifest, "splits": assignment.manifest, "checkpoint": base}
    views = read_views(checkpoint)
    with working(val_calib_logits) as work:
        paths = {"dataset": dataset, "splits": splits, "checkpoint": checkpoint}
        run_module("components.predict_logits.predict", config, paths, work)
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

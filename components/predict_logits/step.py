"""The selected model's logits on VAL_CALIB and VAL_TEST, which no earlier phase reads."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.predict_logits.config import PredictLogitsConfig
from components.predict_logits.explanations import explained_rows, margin_parts
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import verify_dir, working, writing
from components.shared.contracts.documents import read_object
from components.shared.contracts.step import InputDir, OutputDir, main
from components.shared.data import drift_reference as reference
from components.shared.data.arrays import load_array
from components.shared.data.dataset import Dataset
from components.shared.data.margin_parts import MarginParts
from components.shared.data.splits import read_splits, refuse_foreign
from components.shared.data.val_test_images import SPLIT, write_val_test_images
from components.shared.training.session.outputs import write_split_logits
from components.shared.training.session.restarts import run_module
from components.shared.vision.classifier_spec import ClassifierSpec, read_spec

STEP = "predict_logits"


def run(
    config: PredictLogitsConfig,
    *,
    dataset: InputDir,
    splits: InputDir,
    checkpoint: InputDir,
    val_calib_logits: OutputDir,
    val_test_logits: OutputDir,
    val_test_images: OutputDir,
    drift_reference: OutputDir | None = None,
) -> None:
    """Predict through torchrun; write both logits artifacts, and the images that later steps show.

    If interrupted, the step starts from the beginning: prediction has no checkpoints.

    Args:
        config: The step's configuration.
        dataset: The images.
        splits: The splits of the dataset.
        checkpoint: The selected model.
        val_calib_logits: Its logits on VAL_CALIB.
        val_test_logits: Its logits on VAL_TEST.
        val_test_images: What evaluation and export need of VAL_TEST's pixels.
        drift_reference: What new images will be compared with.

    Raises:
        ArtifactError: Checkpoint or splits were made from another dataset.
    """
    data, assignment = Dataset.open(dataset), read_splits(splits)
    base = verify_dir(checkpoint, Kind.CHECKPOINT)
    refuse_foreign(data, assignment, base)
    inputs = {"dataset": data.manifest, "splits": assignment.manifest, "checkpoint": base}
    spec = read_spec(checkpoint)

    with working(val_calib_logits) as work:
        paths = {"dataset": dataset, "splits": splits, "checkpoint": checkpoint}
        run_module("components.predict_logits.predict", config, paths, work, verified=inputs)

        summary = read_object(work / "prediction.json", dict[str, Any])
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
                views=spec.views,
                summary=summary,
            )

        ids = assignment.ids(SPLIT)
        logits = load_array(work / f"{SPLIT}.npy", np.float32, (len(ids), len(data.class_names)))
        with writing(
            val_test_images,
            kind=Kind.VAL_TEST_IMAGES,
            step=STEP,
            config=config,
            inputs=inputs,
            split=SPLIT,
        ) as out:
            parts = _margin_parts(work, spec, data, ids, logits)
            write_val_test_images(out, data.resized(spec.image_size), ids, logits, parts=parts)

        if drift_reference is not None:
            with writing(
                drift_reference,
                kind=Kind.VAL_CALIB_REFERENCE,
                step=STEP,
                config=config,
                inputs=inputs,
                split=reference.SPLIT,
            ) as out:
                shutil.copytree(work / "drift_reference", out, dirs_exist_ok=True)


def _margin_parts(
    work: Path,
    spec: ClassifierSpec,
    data: Dataset,
    ids: Sequence[str],
    logits: npt.NDArray[np.float32],
) -> dict[str, MarginParts]:
    """Return the parts that the ranks left, by sample id."""
    labels = np.array([data.samples[data.index[i]].label for i in ids], dtype=np.int64)
    rows = explained_rows(logits, labels)
    columns = load_array(work / f"{SPLIT}-explained.npy", np.float32, (len(rows), None))
    parts = margin_parts(columns, spec, logits[rows], labels[rows])
    return {ids[row]: part for row, part in zip(rows.tolist(), parts, strict=True)}


if __name__ == "__main__":
    main(run, PredictLogitsConfig)

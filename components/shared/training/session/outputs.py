"""Outputs of a step that are made from what the ranks left: logits, and the measurements."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import Manifest, writing
from components.shared.contracts.config import Config
from components.shared.data.arrays import load_array
from components.shared.data.dataset import Dataset
from components.shared.data.splits import Splits
from components.shared.policies.logits import Logits, Views, write_logits
from components.shared.vision.view_spec import ViewSpec


def write_split_logits(
    path: Path,
    split: str,
    work: Path,
    data: Dataset,
    assignment: Splits,
    *,
    step: str,
    config: Config,
    inputs: Mapping[str, Manifest],
    views: ViewSpec | None = None,
    summary: dict[str, Any] | None = None,
) -> None:
    """Write the predictions of the ranks as a logits artifact, in the order of the sample ids.

    Args:
        path: The artifact's folder.
        split: Name of the split.
        work: Folder with `<split>.npy`, and where the model has them `<split>-gate.npy`,
            `<split>-full-image.npy`, `<split>-distilled.npy` and `<split>-corrupted.npy`.
        data: The dataset.
        assignment: The splits.
        step: Name of the step, for the manifest.
        config: Configuration of the step, for the manifest.
        inputs: Manifests of the step's inputs by name.
        views: How the model cuts images; None for one view.
        summary: Facts for readers of the manifest.
    """
    ids = assignment.ids(split)
    samples = [data.samples[data.index[sample_id]] for sample_id in ids]
    count, n_classes = len(ids), len(data.class_names)
    margin = _optional(work / f"{split}-full-image.npy", count)  # of a binary task alone

    logits = Logits(
        split=split,
        class_names=data.class_names,
        sample_ids=tuple(ids),
        labels=np.array([sample.label for sample in samples], dtype=np.int64),
        logits=load_array(work / f"{split}.npy", np.float32, (count, n_classes)),
        groups=tuple(sample.group for sample in samples),
        sources=tuple(sample.source for sample in samples),
        paths=tuple(sample.path for sample in samples),
        gate=_optional(work / f"{split}-gate.npy", count),
        corrupted=_optional(work / f"{split}-corrupted.npy", None, count, n_classes),
        distilled=_optional(work / f"{split}-distilled.npy", count, n_classes),
        full_image_margin=margin,
        views=None if margin is None or views is None else Views(views.count, views.lower_bound),
    )

    kind = Kind.logits_of(split)
    with writing(
        path, kind=kind, step=step, config=config, inputs=inputs, split=split, summary=summary
    ) as out:
        write_logits(out, logits)


def write_measurements(page: Path | None, work: Path) -> None:
    """Copy the page that the main rank left (`Measurements.write`) to an output of the step.

    None: the output is not connected.
    """
    if page is not None:
        page.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(work / "measurements.html", page)


def _optional(file: Path, *shape: int | None) -> npt.NDArray[np.float32] | None:
    return load_array(file, np.float32, shape) if file.is_file() else None

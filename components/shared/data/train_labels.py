"""The TrainLabels artifact: labels of TRAIN's images, for pre-training that declares to use them.

`train_labels.csv` has a row for every image of the TrainImages artifact that was written beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import Manifest, verify_dir, write_json
from components.shared.contracts.documents import read_object
from components.shared.contracts.errors import ArtifactError, LeakageViolationError
from components.shared.contracts.listing import first_of, shown
from components.shared.contracts.outcomes import class_names_problem
from components.shared.contracts.tables import integer, read_table, write_table
from components.shared.data.dataset import Dataset
from components.shared.data.train_images import SPLIT, TrainImages

_TABLE, _HEADER = "train_labels.csv", "train_labels.json"
_COLUMNS = ("sample_id", "label")


@dataclass(frozen=True)
class _Header:
    """The document of train_labels.json."""

    split: str
    class_names: tuple[str, ...]


def write_train_labels(directory: Path, data: Dataset, ids: Sequence[str]) -> None:
    """Write the labels of TRAIN's samples `ids` into an artifact's staging directory."""
    write_json(directory / _HEADER, {"split": SPLIT, "class_names": list(data.class_names)})
    rows = ((i, data.samples[data.index[i]].label) for i in sorted(ids))
    write_table(directory / _TABLE, _COLUMNS, rows)


def read_train_labels(
    path: Path, images: TrainImages
) -> tuple[Manifest, npt.NDArray[np.int64], int]:
    """Verify and read the labels of these images.

    Returns:
        Manifest, class indices (N,) int64 in the order of the images, and the number of classes.

    Raises:
        LeakageViolationError: the labels are of another split.
        ArtifactError: the artifact is damaged, or the labels are of other images.
    """
    manifest = verify_dir(path, Kind.TRAIN_LABELS, split=SPLIT)
    header = read_object(path / _HEADER, _Header)
    n_classes = len(header.class_names)
    problem = class_names_problem(header.class_names, least=1)
    if problem:
        raise ArtifactError(f"{path / _HEADER}: {problem}")
    if header.split != SPLIT:
        raise LeakageViolationError(
            f"{path}: holds split {shown(header.split)}, this step may only see {SPLIT!r}"
        )

    table = path / _TABLE
    rows = read_table(table, _COLUMNS)
    label_of = {row["sample_id"]: integer(row["label"], str(table)) for row in rows}
    if set(label_of) != set(images.sample_ids):
        raise ArtifactError(
            f"{path}: has labels of other images; use train_images and train_labels of one split"
        )

    outside = sorted(set(label_of.values()) - set(range(n_classes)))
    if outside:
        raise ArtifactError(
            f"{path}: has the labels {first_of(outside)}, expected 0..{n_classes - 1}"
        )

    return manifest, np.array([label_of[i] for i in images.sample_ids], dtype=np.int64), n_classes

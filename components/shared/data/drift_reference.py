"""The drift reference: what a model computes of held-out images, for comparison with new ones.

The images are of VAL_CALIB. A model separates the images that it was trained on from new ones, so
that a reference of TRAIN would take every new image for drift, and VAL_SELECT has selected the
epoch. Of the two untouched splits, VAL_TEST is for the evaluation alone. VAL_CALIB is what a
policy's guarantee speaks about: it holds for images that are exchangeable with these, which is the
hypothesis that a drift test tests. The labels and logits that a policy was fitted on do not change
the features.

Of every group one image is drawn, at most `MOST_IMAGES` in all: groups are exchangeable, images of
one place are not. Images of TRAIN, drawn in the same way, mark where the training data lie.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import Manifest, verify_dir, write_json
from components.shared.contracts.documents import read_object
from components.shared.contracts.errors import ArtifactError, LeakageViolationError
from components.shared.contracts.listing import shown
from components.shared.contracts.outcomes import class_names_problem
from components.shared.data.arrays import load_array
from components.shared.data.features import Floats, Half

SPLIT = "VAL_CALIB"
# Of either split: 4 MB of features of a ViT-L, and enough to see a shift of a tenth of a deviation.
MOST_IMAGES = 1024
_HEADER = "reference.json"
_FILES = ("features.npy", "logits.npy", "labels.npy", "support.npy", "probe.npy")
_LARGEST_HALF = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class DriftReference:
    """Features and logits of held-out images, one of each group.

    Attributes:
        class_names: Of the C classes, in the order of the logits.
        features: (N, 2h) float16, what the head sees of images of VAL_CALIB; of several views
            their pooled features.
        logits: (N, C) float32 of these images, before calibration.
        labels: (N,) int64 class indices.
        support: (M, 2h) float16 of images of TRAIN.
        probe: (2h,) float16 of `reference_image`, by which another backbone is noticed.
        n_groups: Groups of VAL_CALIB; more than N where not all are in the sample.
    """

    class_names: tuple[str, ...]
    features: Half
    logits: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    support: Half
    probe: Half
    n_groups: int


@dataclass(frozen=True)
class _Header:
    """The document of reference.json."""

    split: str
    class_names: tuple[str, ...]
    n_groups: int


def as_half(values: Floats) -> Half:
    """Return the values in float16; those beyond its range become its largest."""
    return np.clip(values, -_LARGEST_HALF, _LARGEST_HALF).astype(np.float16)


def write_reference(directory: Path, reference: DriftReference) -> None:
    """Write the files of a reference into a directory, which is made."""
    directory.mkdir(parents=True, exist_ok=True)
    for file in _FILES:
        np.save(directory / file, getattr(reference, file.partition(".")[0]), allow_pickle=False)
    header = _Header(SPLIT, reference.class_names, reference.n_groups)
    write_json(directory / _HEADER, asdict(header))


def read_reference(directory: Path) -> DriftReference:
    """Read the files of a reference.

    Raises:
        LeakageViolationError: the images are of another split.
        ArtifactError: a file is missing or damaged, or they contradict each other.
    """
    header = read_object(directory / _HEADER, _Header)
    if header.split != SPLIT:
        raise LeakageViolationError(
            f"{directory}: holds split {shown(header.split)}, a drift reference is of {SPLIT!r}"
        )

    features = load_array(directory / "features.npy", np.float16, (None, None))
    count, width = features.shape
    reference = DriftReference(
        class_names=header.class_names,
        features=features,
        logits=load_array(directory / "logits.npy", np.float32, (count, len(header.class_names))),
        labels=load_array(directory / "labels.npy", np.int64, (count,)),
        support=load_array(directory / "support.npy", np.float16, (None, width)),
        probe=load_array(directory / "probe.npy", np.float16, (width,)),
        n_groups=header.n_groups,
    )

    problem = _problem(reference)
    if problem:
        raise ArtifactError(f"{directory}: {problem}")
    return reference


def open_reference(path: Path) -> tuple[DriftReference, Manifest]:
    """Verify and read a ValCalibReference artifact; raises as `read_reference`."""
    manifest = verify_dir(path, Kind.VAL_CALIB_REFERENCE, split=SPLIT)
    return read_reference(path), manifest


def _problem(reference: DriftReference) -> str:
    """Return what is wrong with the values of a reference, or an empty text."""
    names = reference.class_names
    problem = class_names_problem(names)
    if problem:
        return problem
    if not (len(reference.features) and len(reference.support) and len(reference.probe)):
        return "the reference is empty"
    if reference.n_groups < len(reference.features):
        return f"n_groups={reference.n_groups} is below {len(reference.features)} images"
    if not ((reference.labels >= 0) & (reference.labels < len(names))).all():
        return f"labels are not all in 0..{len(names) - 1}"
    for name in ("features", "logits", "support", "probe"):
        if not np.isfinite(getattr(reference, name)).all():
            return f"{name}.npy is not finite"
    return ""

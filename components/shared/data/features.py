"""Features of one split's images: float16 shards in the order of the sample ids.

`features.json` names the split, the sample ids and how the features were computed;
`shards/shard-NNNNN.npy` hold them, (n, A, 2h) float16 of A augmentations, or (n, A, V, 2h) of V
views. Shards are mapped into memory and read by rows, so that no reader holds all features.
`labels.npy` and `groups.npy` are the images' classes and groups, so that who learns heads needs
nothing that holds other splits; artifacts of earlier versions lack them.

float16 has 11 binary digits: a stored value differs from the computed one by at most 2**-11
(4.9e-4) of it, and by at most 2**-25 (3.0e-8) where it is below 2**-14 (6.1e-5). Values above
65,504 have no float16 and are refused.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import Field

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import Manifest, verify_dir, write_json
from components.shared.contracts.documents import read_object
from components.shared.contracts.errors import (
    ArtifactError,
    LeakageViolationError,
    PermanentError,
)
from components.shared.contracts.listing import first_of, shown
from components.shared.contracts.outcomes import class_names_problem
from components.shared.data.arrays import load_array

Floats = npt.NDArray[np.float32]
Half = npt.NDArray[np.float16]
Rows = npt.NDArray[np.int64]

SHARDS = "shards"
_HEADER = "features.json"
_LABELS, _GROUPS = "labels.npy", "groups.npy"
_MOST_HEADER_BYTES = 256 * 2**20  # ids of twelve million images
# An interruption loses one shard: so many passes of the backbone take a GPU some seconds, and their
# features 17 MB at a width of 2048.
_PASSES_PER_SHARD = 4096
_LARGEST_HALF = float(np.finfo(np.float16).max)


class _Recipe(Protocol):
    """Options of a phase that decide its features, besides its backbone and its images."""

    @property
    def augmentation(self) -> str: ...
    @property
    def n_cached_augmentations(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def precision(self) -> str: ...


@dataclass(frozen=True)
class FeatureRecipe:
    """What decides features besides the backbone and the images.

    Attributes:
        n_augmentations: Number A of feature sets per image; the first is of the unaugmented image.
        augmentation: Strength of the augmentation; "none" for one set.
        seed: Seed of the augmentation; 0 for one set.
        precision: Precision of the forward pass; "auto" in a recipe that is asked for.
    """

    n_augmentations: int
    augmentation: str
    seed: int
    precision: str

    @classmethod
    def of(cls, config: _Recipe) -> "FeatureRecipe":
        """Return the recipe of TRAIN's features under a phase's options."""
        count = 1 if config.augmentation == "none" else config.n_cached_augmentations
        if count == 1:
            return cls(1, "none", 0, config.precision)
        return cls(count, config.augmentation, config.seed, config.precision)

    def unaugmented(self) -> "FeatureRecipe":
        """Return the recipe of the features by which epochs are selected."""
        return FeatureRecipe(1, "none", 0, self.precision)

    def differences(self, asked: "FeatureRecipe") -> list[str]:
        """Return how this recipe differs from the one asked for, option by option."""
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(asked)
        return [
            f"{name}={mine[name]}, not {theirs[name]}"
            for name in mine
            if theirs[name] not in (mine[name], "auto")
        ]


@dataclass(frozen=True)
class _Header:
    """The document of features.json; `shape` of one image, [A, 2h] or [A, V, 2h]."""

    split: str
    sample_ids: tuple[str, ...]
    shape: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(max_length=3)]
    rows_per_shard: Annotated[int, Field(ge=0)]
    recipe: FeatureRecipe | None
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class FeatureLabels:
    """What is known of the images of features, in the order of the rows.

    Attributes:
        class_names: Names of the classes.
        labels: (N,) int64 index of each image's class.
        groups: (N,) int64 number of each image's group (place, drive or video), within the split.
    """

    class_names: tuple[str, ...]
    labels: Rows
    groups: Rows

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Features:
    """Features of N images, in shards on disk.

    Attributes:
        sample_ids: Ids of the images, in the order of the rows.
        shape: Axes of one image: (A, 2h), or (A, V, 2h) of V views; () where there are none.
        rows_per_shard: Rows of every shard but the last.
        shards: (n, A, 2h) or (n, A, V, 2h) float16 each, mapped.
        recipe: How they were computed; None where there are none.
    """

    sample_ids: tuple[str, ...]
    shape: tuple[int, ...]
    rows_per_shard: int
    shards: list[Half] = field(repr=False)
    recipe: FeatureRecipe | None

    def __len__(self) -> int:
        return len(self.sample_ids)

    @property
    def n_augmentations(self) -> int:
        """Feature sets per image."""
        return self.shape[0]

    @property
    def width(self) -> int:
        """Length 2h of a feature vector."""
        return self.shape[-1]

    def problems(
        self, manifest: Manifest, inputs: Mapping[str, Manifest], recipe: FeatureRecipe
    ) -> list[str]:
        """Return why these are not the features of `inputs` under `recipe`.

        Args:
            manifest: The manifest of the features.
            inputs: Manifests of dataset, splits and backbone by these names.
            recipe: How the features should have been computed.
        """
        if self.recipe is None:
            return ["has no features: it was written for a run that trains the backbone"]

        foreign = [
            f"made from another {name}"
            for name, wanted in inputs.items()
            if manifest.inputs.get(name) != wanted.content_digest
        ]
        return foreign + self.recipe.differences(recipe)

    def take(self, rows: Rows, augmentations: Rows | None = None) -> Floats:
        """Return features (n, 2h) or (n, V, 2h) float32 of the images `rows` (n,).

        `augmentations`: (n,) which of the A sets each image is seen in; None: the first,
        unaugmented.
        """
        if augmentations is None:
            augmentations = np.zeros(len(rows), dtype=np.int64)

        result = np.empty((len(rows), *self.shape[1:]), dtype=np.float32)
        numbers, within = np.divmod(rows, max(self.rows_per_shard, 1))
        for number in np.unique(numbers):
            chosen = numbers == number
            result[chosen] = self.shards[number][within[chosen], augmentations[chosen]]
        return result

    def blocks(self) -> Iterator[Rows]:
        """Yield all rows in parts that fit into memory, (n,) int64 each, in order."""
        per_block = rows_per_shard(self.shape[1:]) if self.shape else 1
        for start in range(0, len(self), per_block):
            yield np.arange(start, min(start + per_block, len(self)))


def rows_per_shard(shape: Sequence[int]) -> int:
    """Return how many images of `shape` (..., 2h) make a shard; no process count enters it."""
    return max(1, _PASSES_PER_SHARD // math.prod(shape[:-1]))


def to_half(values: Floats, where: str) -> Half:
    """Return the values in float16.

    Raises PermanentError where one is not finite or too large for it: another precision of the
    forward pass, or another backbone, may give smaller ones.
    """
    most = float(np.abs(values).max(initial=0.0))
    if not most <= _LARGEST_HALF:
        raise PermanentError(
            f"{where}: the largest feature is {most:.6g}, float16 ends at {_LARGEST_HALF:,.0f};"
            " use precision=fp32, another backbone, or a mode that trains the backbone"
        )
    return values.astype(np.float16)


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f"shard-{number:05d}.npy"


def map_shards(
    files: Sequence[Path], sample_ids: Sequence[str], shape: Sequence[int], recipe: FeatureRecipe
) -> Features:
    """Map the shards of one split.

    Args:
        files: The shards' files, in order.
        sample_ids: Ids of the images, in the order of the rows.
        shape: Axes of one image: (A, 2h) or (A, V, 2h).
        recipe: How the features were computed.

    Raises:
        ArtifactError: a file is missing, or no such array.
    """
    size, count = rows_per_shard(shape), len(sample_ids)
    return Features(
        tuple(sample_ids), tuple(shape), size, _mapped(files, count, shape, size), recipe
    )


def write_header(
    directory: Path, split: str, features: Features | None, labels: FeatureLabels | None = None
) -> None:
    """Write features.json and the labels into an artifact's staging directory with its shards.

    Args:
        directory: The staging directory.
        split: The split.
        features: None where the artifact is to be empty.
        labels: Of the images of `features`; None where nobody learns from these.
    """
    header = _Header(split, (), (), 0, None)
    if features is not None:
        header = _Header(
            split,
            features.sample_ids,
            features.shape,
            features.rows_per_shard,
            features.recipe,
            labels.class_names if labels is not None else (),
        )
    write_json(directory / _HEADER, dataclasses.asdict(header))
    if labels is not None:
        np.save(directory / _LABELS, labels.labels, allow_pickle=False)
        np.save(directory / _GROUPS, labels.groups, allow_pickle=False)


def read_labels(path: Path, features: Features) -> FeatureLabels:
    """Read what the artifact of `features`, which `open_features` has returned, says of the images.

    Raises:
        ArtifactError: it says nothing, or is damaged.
    """
    header = read_object(path / _HEADER, _Header, most_bytes=_MOST_HEADER_BYTES)
    if not header.class_names:
        raise ArtifactError(
            f"{path}: has no labels: it is empty, or of an earlier version; extract the features"
            " again"
        )

    count = len(features)
    labels = load_array(path / _LABELS, np.int64, (count,))
    groups = load_array(path / _GROUPS, np.int64, (count,))
    problem = class_names_problem(header.class_names, least=1)
    if problem:
        raise ArtifactError(f"{path / _HEADER}: {problem}")
    outside = sorted(set(labels.tolist()) - set(range(len(header.class_names))))
    if outside:
        raise ArtifactError(
            f"{path}: has the labels {first_of(outside)}, expected 0..{len(header.class_names) - 1}"
        )

    return FeatureLabels(header.class_names, labels, groups)


def open_features(path: Path, split: str, *, hashed: bool = True) -> tuple[Features, Manifest]:
    """Map the features of a split, and return them with their manifest.

    Args:
        path: The artifact.
        split: The only split that the caller may see.
        hashed: Whether the files' bytes are compared with the manifest.

    Raises:
        LeakageViolationError: the artifact is of another split, by its manifest or by its content.
        ArtifactError: its files differ from the manifest, or contradict each other.
    """
    kind = Kind.features_of(split)
    manifest = verify_dir(path, kind, split=split, hashed=hashed)
    header = read_object(path / _HEADER, _Header, most_bytes=_MOST_HEADER_BYTES)
    if header.split != split:
        raise LeakageViolationError(
            f"{path}: holds split {shown(header.split)}, this step may only see {split!r}"
        )

    if list(header.sample_ids) != sorted(set(header.sample_ids)):
        raise ArtifactError(f"{path}/{_HEADER}: sample_ids are not sorted, or one occurs twice")
    filled = bool(header.sample_ids)
    if any(bool(part) != filled for part in (header.shape, header.rows_per_shard, header.recipe)):
        raise ArtifactError(f"{path}/{_HEADER}: has images without features, or the reverse")

    size, count = header.rows_per_shard, len(header.sample_ids)
    names = [f"{SHARDS}/{shard_name(n)}" for n in range(-(-count // size) if filled else 0)]
    of_labels = {_LABELS, _GROUPS} if header.class_names else set()
    if manifest.files.keys() != {_HEADER, *names} | of_labels:
        raise ArtifactError(
            f"{path}: {count} images need {len(names)} shards and {_HEADER}, the artifact has"
            f" {len(manifest.files)} files"
        )
    shards = _mapped([path / name for name in names], count, header.shape, size)

    return Features(header.sample_ids, header.shape, size, shards, header.recipe), manifest


def _mapped(files: Sequence[Path], count: int, shape: Sequence[int], size: int) -> list[Half]:
    """Map shards of `size` rows each, the last one of the rest."""
    return [
        load_array(file, np.float16, (min(size, count - number * size), *shape), mapped=True)
        for number, file in enumerate(files)
    ]

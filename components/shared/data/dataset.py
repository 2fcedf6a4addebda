"""The ImageDataset artifact: samples and their pixels.

`samples.csv` has one row per sample, sorted by id; `images/shard-NNNNN.npy` hold the pixels in the
same order and are memory-mapped, so that a batch costs one copy. `duplicates.csv` lists the
duplicates that were found, `rejects.csv` the unusable files.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import Manifest, verify_dir, write_json
from components.shared.contracts.disk import reserve
from components.shared.contracts.documents import read_object
from components.shared.contracts.errors import ArtifactError
from components.shared.contracts.listing import first_of
from components.shared.contracts.outcomes import class_names_problem
from components.shared.contracts.tables import integer, number, read_table, write_table
from components.shared.data.arrays import load_array

SHARD_SIZE = 2048  # images: 300 MB at 224 x 224
_COLUMNS = ("sample_id", "label", "group", "source", "path", "sha256")
ATTRIBUTE = "attribute:"  # apart from our own columns: the user's may have the same names
# Columns that ingest measures of the pixels; data sets of former versions lack them.
MEASURED = ("brightness", "sharpness")


@dataclass(frozen=True)
class Sample:
    """One image of the data set.

    Attributes:
        sample_id: first 16 hex characters of `sha256`.
        label: class index.
        group: the given group, united with those of duplicates.
        source: name of the source.
        path: path of the file, relative to the source.
        sha256: digest of the encoded file.
        attributes: all other columns of the source.
        brightness: mean luma of the stored image, in [0, 255]; None where it was not measured.
        sharpness: variance of its Laplacian, >= 0; None where it was not measured.
    """

    sample_id: str
    label: int
    group: str
    source: str
    path: str
    sha256: str
    attributes: dict[str, str]
    brightness: float | None = None
    sharpness: float | None = None


@dataclass(frozen=True)
class _Header:
    """The document of dataset.json."""

    class_names: tuple[str, ...]
    image_size: int


@dataclass(frozen=True)
class Dataset:
    """An opened, verified artifact; `samples` are sorted by id, `image_size` is in pixels."""

    path: Path
    manifest: Manifest
    class_names: tuple[str, ...]
    image_size: int
    samples: list[Sample] = field(repr=False)
    shards: list[npt.NDArray[np.uint8]] = field(repr=False)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Verify the artifact and map its shards.

        Raises:
            ArtifactError: files differ from the manifest, which lists every difference, or
                contradict each other.
        """
        manifest = verify_dir(path, Kind.IMAGE_DATASET)
        header = read_object(path / "dataset.json", _Header)
        table = path / "samples.csv"
        samples = [_sample(row, str(table)) for row in read_table(table, _COLUMNS)]

        problem = class_names_problem(header.class_names, least=1)
        problem = problem or _sample_problem(samples, len(header.class_names))
        if problem:
            raise ArtifactError(f"{path}: {problem}")

        shards = map_shards(path, len(samples), header.image_size)
        return cls(path, manifest, header.class_names, header.image_size, samples, shards)

    @cached_property
    def index(self) -> dict[str, int]:
        """Position of each sample by its id."""
        return {sample.sample_id: position for position, sample in enumerate(self.samples)}

    def images(
        self, positions: npt.NDArray[np.int64], out: npt.NDArray[np.uint8] | None = None
    ) -> npt.NDArray[np.uint8]:
        """Pixels (n, S, S, 3) uint8 of the samples at `positions` (n,); in `out`, if given."""
        return read_shards(self.shards, positions, self.image_size, out)

    def resized(self, size: int) -> "Dataset":
        """Return the same samples with images of `size` pixels, resized when they are read.

        They equal what ingest stores at this size within the tolerance that `_Resized` states.
        """
        if size == self.image_size:
            return self
        return _Resized(
            self.path, self.manifest, self.class_names, size, self.samples, self.shards, stored=self
        )

    def duplicate_pairs(self) -> list[tuple[str, str]]:
        """Return the ids of the pairs in duplicates.csv of which both images are samples."""
        columns = ("sample_id_a", "sample_id_b")
        rows = read_table(self.path / "duplicates.csv", columns)
        pairs = [(row["sample_id_a"], row["sample_id_b"]) for row in rows]
        return [(a, b) for a, b in pairs if a in self.index and b in self.index]


@dataclass(frozen=True)
class _Resized(Dataset):
    """A data set whose images are resized when they are read, by the filter of ingest.

    Ingest resizes the photograph once, this a second time, with rounding to 8 bits between. Against
    street scenes of 544 x 320 stored at 224 pixels, those stored at 336, 448 and 672 differ by 0.6,
    0.5 and 0.3 of 255 on average, 5, 3 and 3 at the 99th percentile (PSNR 47, 49 and 51 dB). From
    448, features of DINOv2-S move less than by saving the file again at quality 92 (cosine
    distance 5e-5 and 7e-5 on 100 scenes).
    """

    stored: Dataset = field(kw_only=True, repr=False)

    def images(
        self, positions: npt.NDArray[np.int64], out: npt.NDArray[np.uint8] | None = None
    ) -> npt.NDArray[np.uint8]:
        """Pixels as `Dataset.images` returns them, at `image_size`."""
        from PIL import Image  # most readers need no Pillow

        from components.shared.data.decode import resize

        size = self.image_size
        result = np.empty((len(positions), size, size, 3), dtype=np.uint8) if out is None else out
        for row in range(len(positions)):
            image = self.stored.images(positions[row : row + 1])[0]
            result[row] = resize(Image.fromarray(image), size)
        return result

    def resized(self, size: int) -> Dataset:
        """Return the stored images at `size`, resized once."""
        return self.stored.resized(size)


def write_samples(directory: Path, samples: Sequence[Sample]) -> None:
    """Write samples.csv into an artifact's staging directory."""
    attributes = sorted({name for sample in samples for name in sample.attributes})
    columns = [*_COLUMNS, *MEASURED, *(ATTRIBUTE + name for name in attributes)]
    rows = (
        [
            *(getattr(sample, name) for name in (*_COLUMNS, *MEASURED)),
            *(sample.attributes.get(name) for name in attributes),
        ]
        for sample in samples
    )
    write_table(directory / "samples.csv", columns, rows)


def write_header(directory: Path, class_names: tuple[str, ...], image_size: int) -> None:
    """Write dataset.json into an artifact's staging directory."""
    write_json(
        directory / "dataset.json", {"class_names": list(class_names), "image_size": image_size}
    )


def write_shards(
    directory: Path, images: Iterable[npt.NDArray[np.uint8]], count: int, image_size: int
) -> None:
    """Write images into shards of an artifact's staging directory.

    They are written through memory maps, so that the kernel pages them out as it needs, into files
    whose space is reserved before.

    Args:
        directory: the staging directory.
        images: (S, S, 3) uint8 each, in the order of the samples.
        count: number of images.
        image_size: S, in pixels.

    Raises:
        OSError: the disk is full.
    """
    (directory / "images").mkdir()
    shape = (image_size, image_size, 3)
    shard = np.empty((0, *shape), dtype=np.uint8)

    for position, image in enumerate(images):
        if position % SHARD_SIZE == 0:
            rows = min(SHARD_SIZE, count - position)
            file = directory / "images" / f"shard-{position // SHARD_SIZE:05d}.npy"
            shard = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=(rows, *shape))
            reserve(file)

        shard[position % SHARD_SIZE] = image


def map_shards(path: Path, count: int, image_size: int) -> list[npt.NDArray[np.uint8]]:
    """Map the shards that `write_shards` wrote into an artifact.

    Args:
        path: the artifact.
        count: number of its images.
        image_size: S, in pixels.

    Raises:
        ArtifactError: the shards hold another number of images, or images of another size.
    """
    found = {file.name for file in path.glob("images/*.npy")}
    expected = [f"shard-{number:05d}.npy" for number in range(-(-count // SHARD_SIZE))]
    if found != set(expected):
        raise ArtifactError(
            f"{path}: {count} samples need {len(expected)} shards, images/ has {len(found)}"
        )

    rows = [min(SHARD_SIZE, count - SHARD_SIZE * number) for number in range(len(expected))]
    shape = (image_size, image_size, 3)
    # Plain arrays on the maps: indexing a numpy.memmap itself costs several microseconds more.
    return [
        load_array(path / "images" / name, np.uint8, (n, *shape), mapped=True)
        for name, n in zip(expected, rows, strict=True)
    ]


def read_shards(
    shards: Sequence[npt.NDArray[np.uint8]],
    positions: npt.NDArray[np.int64],
    image_size: int,
    out: npt.NDArray[np.uint8] | None = None,
) -> npt.NDArray[np.uint8]:
    """Return pixels (n, S, S, 3) uint8 of the images at `positions` (n,), in `out` if given."""
    result = out
    if result is None:
        result = np.empty((len(positions), image_size, image_size, 3), dtype=np.uint8)
    for row, position in enumerate(positions.tolist()):
        result[row] = shards[position // SHARD_SIZE][position % SHARD_SIZE]
    return result


def _sample_problem(samples: Sequence[Sample], n_classes: int) -> str:
    """Return what is wrong with the ids and labels of samples.csv, or an empty text."""
    ids = [sample.sample_id for sample in samples]
    if ids != sorted(set(ids)):
        return "samples.csv is not sorted by sample_id, or has one twice"
    outside = sorted({sample.label for sample in samples} - set(range(n_classes)))
    return (
        f"samples.csv has the labels {first_of(outside)}, not 0..{n_classes - 1}" if outside else ""
    )


def _sample(row: dict[str, str], where: str) -> Sample:
    attributes = {
        name.removeprefix(ATTRIBUTE): row[name] for name in row if name.startswith(ATTRIBUTE)
    }
    return Sample(
        sample_id=row["sample_id"],
        label=integer(row["label"], where),
        group=row["group"],
        source=row["source"],
        path=row["path"],
        sha256=row["sha256"],
        attributes=attributes,
        brightness=number(row.get("brightness", ""), where),
        sharpness=number(row.get("sharpness", ""), where),
    )

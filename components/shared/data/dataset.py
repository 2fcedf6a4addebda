"""The ImageDataset artifact: samples and their pixels.

`samples.csv` has one row per sample, sorted by id; `images/shard-NNNNN.npy` hold the pixels in the
same order and are memory-mapped, so that a batch costs one copy. `duplicates.csv` lists the
duplicates that were found, `rejects.csv` the unusable files.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import Manifest, verify_dir, write_json
from components.shared.contracts.tables import integer, read_table, write_table

SHARD_SIZE = 2048  # images: 300 MB at 224 x 224
_COLUMNS = ("sample_id", "label", "group", "source", "path", "sha256")
_ATTRIBUTE = "attribute:"  # apart from our own columns: the user's may have the same names


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
    """

    sample_id: str
    label: int
    group: str
    source: str
    path: str
    sha256: str
    attributes: dict[str, str]


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
            ArtifactError: files differ from the manifest; the message lists every difference.
        """
        manifest = verify_dir(path, Kind.IMAGE_DATASET)
        header = json.loads((path / "dataset.json").read_text(encoding="utf-8"))
        table = path / "samples.csv"
        samples = [_sample(row, str(table)) for row in read_table(table, _COLUMNS)]
        shards = map_shards(path)
        return cls(
            path, manifest, tuple(header["class_names"]), header["image_size"], samples, shards
        )

    @cached_property
    def index(self) -> dict[str, int]:
        """Position of each sample by its id."""
        return {sample.sample_id: position for position, sample in enumerate(self.samples)}

    def images(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Return pixels (n, S, S, 3) uint8 of the samples at `positions` (n,)."""
        return read_shards(self.shards, positions, self.image_size)

    def duplicate_pairs(self) -> list[tuple[str, str]]:
        """Return the ids of the pairs in duplicates.csv of which both images are samples."""
        columns = ("sample_id_a", "sample_id_b")
        rows = read_table(self.path / "duplicates.csv", columns)
        pairs = [(row["sample_id_a"], row["sample_id_b"]) for row in rows]
        return [(a, b) for a, b in pairs if a in self.index and b in self.index]


def write_samples(directory: Path, samples: Sequence[Sample]) -> None:
    """Write samples.csv into an artifact's staging directory."""
    attributes = sorted({name for sample in samples for name in sample.attributes})
    columns = [*_COLUMNS, *(_ATTRIBUTE + name for name in attributes)]
    rows = (
        [
            *(getattr(sample, name) for name in _COLUMNS),
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

    They are written through memory maps, so that the kernel pages them out as it needs.

    Args:
        directory: the staging directory.
        images: (S, S, 3) uint8 each, in the order of the samples.
        count: number of images.
        image_size: S, in pixels.
    """
    (directory / "images").mkdir()
    shape = (image_size, image_size, 3)
    shard = np.empty((0, *shape), dtype=np.uint8)

    for position, image in enumerate(images):
        if position % SHARD_SIZE == 0:
            rows = min(SHARD_SIZE, count - position)
            file = directory / "images" / f"shard-{position // SHARD_SIZE:05d}.npy"
            shard = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=(rows, *shape))

        shard[position % SHARD_SIZE] = image


def map_shards(path: Path) -> list[npt.NDArray[np.uint8]]:
    """Map the shards that `write_shards` wrote into an artifact."""
    files = sorted(path.glob("images/*.npy"))
    # Plain arrays on the maps: indexing a numpy.memmap itself costs several microseconds more.
    return [np.asarray(np.load(file, mmap_mode="r", allow_pickle=False)) for file in files]


def read_shards(
    shards: Sequence[npt.NDArray[np.uint8]], positions: npt.NDArray[np.int64], image_size: int
) -> npt.NDArray[np.uint8]:
    """Return pixels (n, S, S, 3) uint8 of the images at `positions` (n,)."""
    result = np.empty((len(positions), image_size, image_size, 3), dtype=np.uint8)
    for row, position in enumerate(positions.tolist()):
        result[row] = shards[position // SHARD_SIZE][position % SHARD_SIZE]
    return result


def _sample(row: dict[str, str], where: str) -> Sample:
    attributes = {
        name.removeprefix(_ATTRIBUTE): row[name] for name in row if name.startswith(_ATTRIBUTE)
    }
    return Sample(
        sample_id=row["sample_id"],
        label=integer(row["label"], where),
        group=row["group"],
        source=row["source"],
        path=row["path"],
        sha256=row["sha256"],
        attributes=attributes,
    )

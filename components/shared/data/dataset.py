"""Which samples does an ImageDataset artifact hold, and what are their pixels?

`samples.csv` has one row per sample, sorted by id; `images/shard-NNNNN.npy` hold the pixels in the same order and are
memory-mapped, so that a batch costs a copy and nothing else.
"""

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from components.shared.artifacts import Manifest, verify_dir, write_json

KIND = "ImageDataset"
SHARD_SIZE = 2048  # images: 300 MB at 224 x 224
SAMPLE_COLUMNS = ("sample_id", "label", "group", "source", "path", "sha256")


@dataclass(frozen=True)
class Sample:
    """One image. `group` unites the given group with those of duplicates; `attributes` are all other columns."""

    sample_id: str
    label: int
    group: str
    source: str
    path: str
    sha256: str
    attributes: dict[str, str]  # names never collide with SAMPLE_COLUMNS


@dataclass(frozen=True)
class Dataset:
    """An opened, verified artifact."""

    manifest: Manifest
    class_names: tuple[str, ...]
    image_size: int
    samples: list[Sample]
    index: dict[str, int]
    shards: list[npt.NDArray[np.uint8]]

    @classmethod
    def open(cls, path: Path) -> Self:
        """Verify the artifact and map its shards. Raises ArtifactError listing every difference."""
        manifest = verify_dir(path, KIND)
        header = json.loads((path / "dataset.json").read_text(encoding="utf-8"))
        with (path / "samples.csv").open(newline="", encoding="utf-8") as stream:
            samples = [_sample(row) for row in csv.DictReader(stream)]
        shards = [np.load(file, mmap_mode="r", allow_pickle=False) for file in sorted(path.glob("images/*.npy"))]
        index = {sample.sample_id: position for position, sample in enumerate(samples)}
        return cls(manifest, tuple(header["class_names"]), header["image_size"], samples, index, shards)

    def images(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Pixels (n, S, S, 3) uint8 of the samples at `positions` (n,)."""
        result = np.empty((len(positions), self.image_size, self.image_size, 3), dtype=np.uint8)
        for row, position in enumerate(positions.tolist()):
            result[row] = self.shards[position // SHARD_SIZE][position % SHARD_SIZE]
        return result


def write_samples(directory: Path, samples: list[Sample], class_names: tuple[str, ...], image_size: int) -> None:
    """Write samples.csv and dataset.json into an artifact's staging directory."""
    attributes = sorted({name for sample in samples for name in sample.attributes})
    with (directory / "samples.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*SAMPLE_COLUMNS, *attributes])
        for sample in samples:
            fixed = [getattr(sample, name) for name in SAMPLE_COLUMNS]
            writer.writerow(fixed + [sample.attributes.get(name, "") for name in attributes])
    write_json(directory / "dataset.json", {"class_names": list(class_names), "image_size": image_size})


def write_shards(directory: Path, images: Iterable[npt.NDArray[np.uint8]], count: int, image_size: int) -> None:
    """Write `count` images (S, S, 3) uint8, in order, through memory maps: memory stays bounded by one image."""
    (directory / "images").mkdir()
    shard: npt.NDArray[np.uint8] | None = None
    for position, image in enumerate(images):
        if position % SHARD_SIZE == 0:
            rows = min(SHARD_SIZE, count - position)
            file = directory / "images" / f"shard-{position // SHARD_SIZE:05d}.npy"
            shard = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=(rows, image_size, image_size, 3))
        assert shard is not None
        shard[position % SHARD_SIZE] = image


def _sample(row: dict[str, str]) -> Sample:
    attributes = {name: value for name, value in row.items() if name not in SAMPLE_COLUMNS}
    fixed = {name: row[name] for name in SAMPLE_COLUMNS}
    return Sample(**{**fixed, "label": int(fixed["label"])}, attributes=attributes)  # type: ignore[arg-type]

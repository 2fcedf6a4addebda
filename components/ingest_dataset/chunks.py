"""Chunks of checked images: what an ingest that is started again does not decode again.

Files are checked in the order of the listing, a quarter of a gigabyte of pixels at a time; an
attempt that is killed loses the chunk that it was at.
"""

import contextlib
import importlib.metadata
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from components.ingest_dataset.config import PartConfig
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import code_version, write_json
from components.shared.contracts.config import digest
from components.shared.contracts.disk import reserve
from components.shared.contracts.documents import read_object
from components.shared.data import finished_parts
from components.shared.data.arrays import load_array
from components.shared.data.finished_parts import FinishedParts

FILES = ("descriptions.json", "hashes.npy", "pixels.npy")
_DESCRIPTIONS, _HASHES, _PIXELS = FILES
_CHUNK_BYTES = 256 << 20  # of pixels: what an attempt holds in memory, and loses at most
_MOST_ROWS = 2048


@dataclass(frozen=True)
class Description:
    """What is known of a file after it was read.

    reason: why it is refused; empty for usable files. sha256: of its bytes; empty for refused ones.
    brightness and sharpness: of its pixels, see `appearance`; None for refused files. The others
    are those of its record.
    """

    source: str
    path: str
    label: str
    group: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    sha256: str = ""
    reason: str = ""
    brightness: float | None = None
    sharpness: float | None = None


@dataclass(frozen=True)
class Chunk:
    """Checked files in the order of the listing.

    hashes: (n,) uint64 perceptual hashes, and pixels: n images (S, S, 3) uint8, of the n usable
    ones, in the same order.
    """

    descriptions: list[Description]
    hashes: npt.NDArray[np.uint64]
    pixels: Sequence[npt.NDArray[np.uint8]] | npt.NDArray[np.uint8]

    @classmethod
    def read(cls, path: Path, image_size: int) -> Self:
        """Map a chunk whose files were verified; raises ArtifactError where they are none."""
        descriptions = read_object(path / _DESCRIPTIONS, list[Description])
        n_usable = sum(not item.reason for item in descriptions)
        hashes = load_array(path / _HASHES, np.uint64, (n_usable,))
        shape = (n_usable, image_size, image_size, 3)
        return cls(descriptions, hashes, load_array(path / _PIXELS, np.uint8, shape, mapped=True))

    def write(self, directory: Path, image_size: int) -> None:
        """Write the three files; raises OSError where the disk is full."""
        write_json(directory / _DESCRIPTIONS, [asdict(item) for item in self.descriptions])
        np.save(directory / _HASHES, self.hashes)
        shape = (len(self.pixels), image_size, image_size, 3)
        if not len(self.pixels):
            np.save(directory / _PIXELS, np.empty(shape, dtype=np.uint8))
            return

        file = directory / _PIXELS
        stored = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
        reserve(file)
        for row, image in enumerate(self.pixels):
            stored[row] = image
        stored.flush()


def rows_of_chunk(image_size: int) -> int:
    """Return how many files a chunk has."""
    return max(min(_CHUNK_BYTES // (3 * image_size**2), _MOST_ROWS), 1)


def chunk_name(number: int) -> str:
    """Return the name of a chunk's folder."""
    return f"chunk-{number:06d}"


class ChunkFolder:
    """Finished chunks of one ingest, by their numbers."""

    def __init__(self, parts: FinishedParts, image_size: int) -> None:
        """Take the parts of this attempt and of earlier ones."""
        self._parts, self._image_size = parts, image_size

    def find(self, number: int) -> Path | None:
        """Return a chunk that an earlier attempt finished, verified; None where there is none."""
        return self._parts.find(chunk_name(number), lambda path: Chunk.read(path, self._image_size))

    def add(self, number: int, chunk: Chunk) -> Path:
        """Write a chunk, and send it to the store while the next one is decoded."""
        return self._parts.add(chunk_name(number), lambda out: chunk.write(out, self._image_size))

    def settle(self) -> None:
        """Wait for the upload under way."""
        self._parts.settle()


@contextlib.contextmanager
def resumable(config: PartConfig, output: Path) -> Iterator[ChunkFolder]:
    """Yield the chunks that earlier attempts with the same inputs have finished.

    They are found by the fingerprint of the sources; without one nothing says what these hold, and
    no chunk outlives the attempt.
    """
    work = finished_parts.Work("ingest", Kind.IMAGE_PART, "ingest_dataset", config)
    versions = [code_version(), importlib.metadata.version("pillow")]
    key = digest(["ingest_dataset", config.to_json(), versions])[:32]
    with finished_parts.resumable(
        work, key if config.source_fingerprint else None, output
    ) as parts:
        yield ChunkFolder(parts, config.image_size)

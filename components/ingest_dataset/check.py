"""Check of every file of the sources: its pixels, digest and thumbnail, or why it is refused."""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from components.ingest_dataset import duplicates
from components.ingest_dataset.config import IngestConfig
from components.ingest_dataset.parallel import ordered_map
from components.ingest_dataset.sources.labels import Labelling
from components.ingest_dataset.sources.records import Record, Source
from components.shared.contracts.progress import progress
from components.shared.data.decode import ImageRejectedError, decode_resized, without_warnings

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Checked:
    """A record after decoding.

    reason: why the file is refused; empty for usable files. position: row of the pixels in
    `PixelFile`; -1 for refused files.
    """

    source: str
    path: str
    label: str
    group: str
    attributes: dict[str, str]
    sha256: str = ""
    reason: str = ""
    position: int = -1
    thumbnail: Pixels | None = None

    @property
    def order(self) -> tuple[str, str, str, list[tuple[str, str]]]:
        """Sort key that replaces the listing order.

        Digest and attributes distinguish rows of Parquet without paths.
        """
        return self.source, self.path, self.sha256, sorted(self.attributes.items())


class PixelFile:
    """Decoded images in order of arrival, on disk, since all of them may exceed the memory."""

    def __init__(self, path: Path, image_size: int) -> None:
        self._path, self._shape = path, (image_size, image_size, 3)
        self._rows: dict[str, int] = {}
        self._stream: BinaryIO = path.open("wb")

    def add(self, sha256: str, pixels: Pixels) -> int:
        """Append an image and return its row; a copy of an earlier file gets the earlier row."""
        if sha256 not in self._rows:
            self._rows[sha256] = len(self._rows)
            self._stream.write(pixels.tobytes())
        return self._rows[sha256]

    def close(self) -> None:
        """End writing."""
        self._stream.close()

    def read(self) -> Pixels:
        """Return all images (n, S, S, 3) uint8, memory-mapped."""
        self.close()
        return np.memmap(
            self._path, dtype=np.uint8, mode="r", shape=(len(self._rows), *self._shape)
        )


def check_all(
    config: IngestConfig, sources: Sequence[Source], labelling: Labelling, pixels: PixelFile
) -> list[Checked]:
    """Decode every record of every source; the result is sorted by source and path.

    Args:
        config: limits and the size of stored images.
        sources: the opened sources.
        labelling: the classes of their labels.
        pixels: receives the decoded images.
    """
    records = itertools.chain.from_iterable(
        source.records(classes)
        for source, classes in zip(sources, labelling.of_sources, strict=True)
    )
    results = ordered_map(lambda record: _decode_record(record, config), records)
    checked = []

    with without_warnings():
        for item, image in progress(results, "images", total=labelling.n_used):
            position = -1 if image is None else pixels.add(item.sha256, image)
            checked.append(replace(item, position=position))

    return sorted(checked, key=lambda item: item.order)


def _decode_record(record: Record, config: IngestConfig) -> tuple[Checked, Pixels | None]:
    """Return the checked record and its pixels (S, S, 3) uint8, None for a refused file."""
    described = (record.source, record.path, record.label, record.group, record.attributes)
    try:
        data = record.read()
        image = decode_resized(data, size=config.image_size, max_pixels=config.max_pixels)
    except ImageRejectedError as error:
        return Checked(*described, reason=str(error)), None

    digest = hashlib.sha256(data).hexdigest()

    return Checked(*described, sha256=digest, thumbnail=duplicates.thumbnail(image)), image

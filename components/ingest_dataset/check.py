"""Is this file a usable image, and what are its digest, hash and pixels?"""

import hashlib
import itertools
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from components.ingest_dataset import duplicates
from components.ingest_dataset.config import IngestConfig
from components.ingest_dataset.parallel import ordered_map
from components.ingest_dataset.sources.open import open_source
from components.ingest_dataset.sources.records import Record
from components.shared.contracts.progress import progress
from components.shared.data.decode import ImageRejectedError, decode_resized

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Checked:
    """A record after decoding. `reason` is set for rejects; `position` is the row of the pixels in
    `PixelFile`.
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
        """By what the listing order is replaced; the last two tell rows of Parquet without paths
        apart.
        """
        return self.source, self.path, self.sha256, sorted(self.attributes.items())


class PixelFile:
    """Decoded images in order of arrival, on disk: all of them together may exceed the memory."""

    def __init__(self, path: Path, image_size: int) -> None:
        self._path, self._shape = path, (image_size, image_size, 3)
        self._rows: dict[str, int] = {}
        self._stream: BinaryIO = path.open("wb")

    def add(self, sha256: str, pixels: Pixels) -> int:
        """Row of the image; a copy of an earlier file gets the earlier row."""
        if sha256 not in self._rows:
            self._rows[sha256] = len(self._rows)
            self._stream.write(pixels.tobytes())
        return self._rows[sha256]

    def close(self) -> None:
        """End writing."""
        self._stream.close()

    def read(self) -> Pixels:
        """(n, S, S, 3) uint8, memory-mapped."""
        self.close()
        return np.memmap(
            self._path, dtype=np.uint8, mode="r", shape=(len(self._rows), *self._shape)
        )


def check_all(config: IngestConfig, pixels: PixelFile) -> list[Checked]:
    """Every record of every source, decoded; sorted by source and path, whatever the listing order.

    All tables are checked before the first image is decoded. Raises DataError.
    """
    sources = [open_source(source, config.class_names) for source in config.sources()]
    records = itertools.chain.from_iterable(source.records() for source in sources)
    results = ordered_map(lambda record: _check(record, config), records)
    checked = []
    with warnings.catch_warnings():
        # Pillow's remarks on damaged metadata and large images: the pixels are fine, the size is
        # checked by us.
        warnings.simplefilter("ignore")
        for item, image in progress(
            results, "images", total=sum(source.count for source in sources)
        ):
            position = -1 if image is None else pixels.add(item.sha256, image)
            checked.append(replace(item, position=position))
    return sorted(checked, key=lambda item: item.order)


def _check(record: Record, config: IngestConfig) -> tuple[Checked, Pixels | None]:
    described = (record.source, record.path, record.label, record.group, record.attributes)
    try:
        data = record.read()
        image = decode_resized(
            data, name=record.path, size=config.image_size, max_pixels=config.max_pixels
        )
    except ImageRejectedError as error:
        return Checked(*described, reason=str(error)), None
    digest = hashlib.sha256(data).hexdigest()
    return Checked(*described, sha256=digest, thumbnail=duplicates.thumbnail(image)), image

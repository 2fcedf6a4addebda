"""Check of every file of the sources: its pixels, digest and hash, or why it is refused."""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from components.ingest_dataset.appearance import appearance
from components.ingest_dataset.chunks import Chunk, ChunkFolder, Description, rows_of_chunk
from components.ingest_dataset.config import PartConfig
from components.ingest_dataset.sources.labels import Labelling
from components.ingest_dataset.sources.records import Record, Source
from components.shared.contracts.listing import printable, say
from components.shared.contracts.progress import progress
from components.shared.data import duplicates
from components.shared.data.decode import ImageRejectedError, decode_resized, without_warnings
from components.shared.data.parallel import ordered_map

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Checked:
    """A file after decoding.

    description: what its record says, and its digest, or why it is refused. chunk and row: where
    its pixels are; hash: the perceptual hash of its pixels. All three are 0 for a refused file.
    """

    description: Description
    chunk: int = 0
    row: int = 0
    hash: int = 0

    @property
    def order(self) -> tuple[object, ...]:
        """Sort key that replaces the order of arrival.

        Digest and attributes distinguish rows of Parquet without paths. Files with equal keys are
        equal in everything that is written of them.
        """
        said = self.description
        attributes = sorted(said.attributes.items())
        return said.source, said.path, said.sha256, attributes, said.label, said.group, said.reason


def check_all(
    config: PartConfig, sources: Sequence[Source], labelling: Labelling, finished: ChunkFolder
) -> list[Path]:
    """Decode every record of a part of the sources; return the chunks in the order of the listing.

    Args:
        config: limits, the size of stored images, and the part.
        sources: the opened sources.
        labelling: the classes of their labels.
        finished: chunks of an earlier attempt, which are not decoded again; receives the others.
    """
    listed = itertools.chain.from_iterable(
        source.records(classes, config.listing_part)
        for source, classes in zip(sources, labelling.of_sources, strict=True)
    )
    total = labelling.n_used if config.n_parts == 1 else None
    records = iter(progress(listed, "images", total=total))
    paths: list[Path] = []
    n_reused = 0

    with without_warnings():
        while (first := next(records, None)) is not None:
            of_chunk = itertools.chain(
                [first], itertools.islice(records, rows_of_chunk(config.image_size) - 1)
            )
            path = finished.find(len(paths))
            if path is None:
                path = finished.add(len(paths), _chunk(of_chunk, config))
            else:
                n_reused += sum(1 for _ in of_chunk)
            paths.append(path)

    finished.settle()
    if n_reused:
        say(f"{n_reused} images were checked by an earlier attempt with the same inputs")
    return paths


def checked_files(chunks: Sequence[Chunk]) -> list[Checked]:
    """Return all files of all chunks, sorted by source and path."""
    checked = []
    for number, chunk in enumerate(chunks):
        rows = iter(enumerate(chunk.hashes.tolist()))
        for description in chunk.descriptions:
            row, hashed = (0, 0) if description.reason else next(rows)
            checked.append(Checked(description, number, row, hashed))

    return sorted(checked, key=lambda item: item.order)


def _chunk(records: Iterator[Record], config: PartConfig) -> Chunk:
    """Return the checked records, with the pixels of usable ones in memory."""
    descriptions, thumbnails, images = [], [], []
    for description, image in ordered_map(lambda record: _decode_record(record, config), records):
        descriptions.append(description)
        if image is not None:
            thumbnails.append(duplicates.thumbnail(image))
            images.append(image)

    side = duplicates.THUMBNAIL_SIZE
    of_usable = np.array(thumbnails, dtype=np.uint8).reshape(-1, side, side)
    return Chunk(descriptions, duplicates.perceptual_hashes(of_usable), images)


def _decode_record(record: Record, config: PartConfig) -> tuple[Description, Pixels | None]:
    """Return the description and the pixels (S, S, 3) uint8, None for a refused file."""
    described = (record.source, record.path, record.label, record.group, record.attributes)
    try:
        data = record.read()
        image = decode_resized(data, size=config.image_size, max_pixels=config.max_pixels)
    except ImageRejectedError as error:
        # Its name may be no text: rejects are for people.
        path = printable(record.path)
        return Description(record.source, path, record.label, reason=str(error)), None

    measured = appearance(image)
    description = Description(
        *described,
        sha256=hashlib.sha256(data).hexdigest(),
        brightness=measured.brightness,
        sharpness=measured.sharpness,
    )
    return description, image

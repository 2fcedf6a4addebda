"""Parts of a data set: written by tasks side by side, and read by the one that merges them.

A part is the chunks of the files that a hash assigns to it, and what it found in the labels. Each
task reads the labels of the whole listing, so that all agree about the classes.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from components.ingest_dataset.check import check_all
from components.ingest_dataset.chunks import FILES, Chunk, chunk_name, resumable
from components.ingest_dataset.config import IngestConfig, PartConfig
from components.ingest_dataset.corrections import Corrections
from components.ingest_dataset.label_report import LabelRow, label_rows, print_labels
from components.ingest_dataset.sources.labels import Labelling, label_sources
from components.ingest_dataset.sources.open import open_source
from components.ingest_dataset.sources.records import Source
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import verify_dir, write_json, writing
from components.shared.contracts.documents import read_object
from components.shared.contracts.errors import ArtifactError, ConfigError
from components.shared.contracts.listing import say
from components.shared.contracts.step import OutputDir

_HEADER = "part.json"


@dataclass(frozen=True)
class Header:
    """The document of part.json.

    config: the options of ingest, without the part; class_names, origin and labels: what the labels
    of the whole listing say; n_chunks: of this part, number `part` of `n_parts`.
    """

    config: dict[str, Any]
    class_names: list[str]
    origin: str
    labels: list[LabelRow]
    part: int
    n_parts: int
    n_chunks: int


def run_part(config: PartConfig, *, part: OutputDir) -> None:
    """Check the images of one part of the listing.

    Raises:
        ConfigError: `data` is not set.
        DataError: a table is wrong, or a label has no class.
    """
    with (
        checked_part(config, part) as (header, chunks),
        writing(part, kind=Kind.IMAGE_PART, step="ingest_dataset", config=config) as out,
    ):
        write_json(out / _HEADER, asdict(header))
        for chunk in chunks:
            _link_files(chunk, out / chunk.name)

    say(f"part {config.part} of {config.n_parts} has {header.n_chunks} chunks")


@contextlib.contextmanager
def checked_part(config: PartConfig, output: Path) -> Iterator[tuple[Header, list[Path]]]:
    """Yield what is known of a part, and its chunks, which stay until `output` is written.

    Raises as `run_part`.
    """
    sources, labelling = _open_sources(config)
    rows = label_rows(sources, labelling)
    print_labels(rows, labelling.class_names, labelling.origin)

    with resumable(config, output) as finished:
        chunks = check_all(config, sources, labelling, finished)
        header = Header(
            config=_of_ingest(config),
            class_names=list(labelling.class_names),
            origin=labelling.origin,
            labels=rows,
            part=config.part,
            n_parts=config.n_parts,
            n_chunks=len(chunks),
        )
        yield header, chunks


def _open_sources(config: IngestConfig) -> tuple[list[Source], Labelling]:
    """Open all sources and find the classes of their labels, before any image is decoded.

    Raises:
        ConfigError: `data` is not set.
        DataError: a table is wrong, a label has no class, or a correction none.
    """
    if not config.data:
        raise ConfigError(
            "data='' is not set; give a folder with a CSV, a Parquet file or folder, a folder with"
            " one folder per class, or an s3:// address"
        )
    corrections = Corrections.read(config)
    sources = [open_source(source) for source in config.sources()]
    labelling = label_sources(sources, config.class_names)
    corrections.check_classes(labelling.class_names)

    return sources, labelling


def read_parts(config: IngestConfig, paths: Sequence[Path]) -> tuple[Header, list[Chunk]]:
    """Verify all parts and return what they say together, and their chunks.

    Raises:
        ArtifactError: a part is damaged, missing or twice, or is of other options or other data.
    """
    headers = []
    for path in paths:
        verify_dir(path, Kind.IMAGE_PART)
        headers.append(read_object(path / _HEADER, Header))

    found = sorted(header.part for header in headers)
    n_parts = headers[0].n_parts
    if found != list(range(1, n_parts + 1)):
        raise ArtifactError(f"the parts are number {found}, expected each of 1 to {n_parts} once")

    said = {path: _shared(header) for path, header in zip(paths, headers, strict=True)}
    other = [str(path) for path in paths if said[path] != said[paths[0]]]
    if other or headers[0].config != _of_ingest(config):
        raise ArtifactError(
            f"{other[0] if other else paths[0]}: is a part of other data, or of other options;"
            " run the tasks of all parts again"
        )

    chunks = [
        Chunk.read(path / chunk_name(number), config.image_size)
        for path, header in zip(paths, headers, strict=True)
        for number in range(header.n_chunks)
    ]
    return headers[0], chunks


def _of_ingest(config: IngestConfig) -> dict[str, Any]:
    """Return the options that all parts and their merge have."""
    values = config.to_json()
    return {name: values[name] for name in IngestConfig.__dataclass_fields__}


def _shared(header: Header) -> list[Any]:
    """Return what all parts say alike."""
    return [header.config, header.class_names, header.origin, header.labels, header.n_parts]


def _link_files(chunk: Path, target: Path) -> None:
    """Give the files of a chunk a second name; copy them where the file system has no links."""
    target.mkdir()
    for name in FILES:
        try:
            os.link(chunk / name, target / name)
        except OSError:
            shutil.copyfile(chunk / name, target / name)

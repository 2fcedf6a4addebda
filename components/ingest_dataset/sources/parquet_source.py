"""Source of images in Parquet files of the Hugging Face image layout.

Column `image` is a struct of `bytes` and `path`; nested columns get dotted names
(`video_info.vid_id`). The labels are read first, alone (Parquet is columnar); the images then
stream, a few rows at a time. pyarrow needs about twice the memory of a file's largest page, which
with large images is a row group (Hugging Face datasets writes 100 images).
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

from components.ingest_dataset.sources.config import EXCLUDE, SourceConfig
from components.ingest_dataset.sources.files import Files
from components.ingest_dataset.sources.labels import map_labels, need_columns
from components.ingest_dataset.sources.records import Record, Source
from components.shared.contracts.errors import DataError, one_line
from components.shared.data.decode import ImageRejectedError

_IMAGE = "image"
_BATCH_ROWS = 16  # a photograph has some MB
_LABEL_BATCH_ROWS = 65536
_BUFFER_BYTES = 1 << 20  # without it pyarrow reads a row group's column at once


def open_parquet(
    config: SourceConfig, class_names: tuple[str, ...], files: Files, names: list[str]
) -> Source:
    """Check schema and labels of every file.

    Raises:
        DataError: the message names file, rows and the remedy.
    """
    labels: dict[str, list[str]] = {}
    for name in names:
        where = f"{files.address}/{name}"
        with _opened(files, name) as file:
            _check_schema(config, file.schema_arrow, where)
            raw = [row[config.label_column] for row in _rows(file, [config.label_column])]

        labels[name] = map_labels(config, class_names, raw, where, first_row=1)

    count = sum(label != EXCLUDE for column in labels.values() for label in column)
    if not count:
        raise DataError(
            f"{files.address}: no rows are left; the Parquet files are empty or label_map"
            " excludes all"
        )

    def records() -> Iterator[Record]:
        for name in names:
            with _opened(files, name) as file:
                yield from _records(config, file, name, labels[name])

    return Source(config.name, count, records)


@contextlib.contextmanager
def _opened(files: Files, name: str) -> Iterator[Any]:
    """Open a ParquetFile; errors of pyarrow in the block become a DataError."""
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    where = f"{files.address}/{name}"
    try:
        with pq.ParquetFile(
            files.seekable(name), buffer_size=_BUFFER_BYTES, pre_buffer=False
        ) as file:
            yield file
    except ImageRejectedError as error:
        raise DataError(f"{where}: {error}; replace the link by the file") from error
    except (ArrowException, OSError) as error:
        raise DataError(
            f"{where}: not a readable Parquet file ({one_line(error)[:200]})"
        ) from error


def _check_schema(config: SourceConfig, schema: Any, where: str) -> None:
    """Raise DataError where a column is missing or images have another layout."""
    import pyarrow as pa

    need_columns(config, list(_leaves(schema)), (), where)
    image = schema.field(_IMAGE).type if _IMAGE in schema.names else None
    if image is None or not pa.types.is_struct(image) or image.get_field_index("bytes") < 0:
        raise DataError(
            f"{where}: column {_IMAGE!r} must be a struct with 'bytes', as Hugging Face datasets"
            f" writes it; columns: {', '.join(schema.names)}"
        )


def _records(config: SourceConfig, file: Any, name: str, labels: list[str]) -> Iterator[Record]:
    """Yield the records of one file, without excluded rows."""
    wanted = [
        column
        for column in file.schema_arrow.names
        if column == _IMAGE or _carried(file.schema_arrow, column)
    ]

    for number, (row, label) in enumerate(zip(_rows(file, wanted), labels, strict=True), start=1):
        data, path = row.pop(f"{_IMAGE}.bytes"), row.pop(f"{_IMAGE}.path", "")
        if label == EXCLUDE:
            continue

        attributes = {key: value for key, value in row.items() if key != config.label_column}
        if config.timestamp_column:
            attributes["timestamp"] = row[config.timestamp_column]
        group = row.get(config.group_column, "")
        read = functools.partial(_bytes, data)
        yield Record(config.name, path or f"{name}#{number}", label, group, attributes, read)


def _bytes(data: bytes | str) -> bytes:
    """Return the image's bytes; a missing value is an empty text."""
    if isinstance(data, str):
        raise ImageRejectedError("the Parquet row has no bytes")
    return data


def _rows(file: Any, columns: list[str]) -> Iterator[dict[str, Any]]:
    """Yield rows as flat dictionaries of text; bytes stay bytes."""
    size = _BATCH_ROWS if _IMAGE in columns else _LABEL_BATCH_ROWS
    for batch in file.iter_batches(batch_size=size, columns=columns, use_threads=False):
        for row in batch.to_pylist():
            yield _flat(row)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values under dotted names, without lists."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, bytes):
            flat[prefix + key] = value
        elif not isinstance(value, list):
            flat[prefix + key] = "" if value is None else str(value)

    return flat


def _leaves(schema: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all columns that are no structs."""
    import pyarrow as pa

    for field in schema:
        if pa.types.is_struct(field.type):
            yield from _leaves(field.type, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


def _carried(schema: Any, column: str) -> bool:
    """Return whether a column can be an attribute: text, number, time or a struct of such."""
    import pyarrow as pa

    kind = schema.field(column).type
    binary = (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
    )

    return not (binary or pa.types.is_nested(kind)) or pa.types.is_struct(kind)

"""Source of images in Parquet files of the Hugging Face image layout.

Column `image` is a struct of `bytes` and `path`; nested columns get dotted names
(`video_info.vid_id`). The labels are read first, alone (Parquet is columnar); the images then
stream, a few rows at a time. pyarrow needs about twice the memory of a file's largest page, which
with large images is a row group (Hugging Face datasets writes 100 images).
"""

import contextlib
import functools
import json
from collections.abc import Iterator
from typing import Any

from components.ingest_dataset.sources.config import EXCLUDE, SourceConfig
from components.ingest_dataset.sources.files import Files
from components.ingest_dataset.sources.labels import need_columns
from components.ingest_dataset.sources.records import Classes, Label, LabelTable, Record, Source
from components.shared.contracts.errors import DataError, one_line
from components.shared.contracts.listing import first_of
from components.shared.data.decode import ImageRejectedError

_IMAGE = "image"
_BATCH_ROWS = 16  # a photograph has some MB
_LABEL_BATCH_ROWS = 65536
_BUFFER_BYTES = 1 << 20  # without it pyarrow reads a row group's column at once


def open_parquet(config: SourceConfig, files: Files, names: list[str]) -> Source:
    """Check schema and labels of every file.

    Raises:
        DataError: the message names file, rows and the remedy.
    """
    tables = [_label_table(config, files, name) for name in names]
    if not any(table.labels for table in tables):
        raise DataError(f"{files.address}: no rows; the Parquet files are empty")

    def records(classes: Classes) -> Iterator[Record]:
        for name, table in zip(names, tables, strict=True):
            with _opened(files, name) as file:
                yield from _records(config, file, name, [classes[x] for x in table.labels])

    return Source(config.name, config.label_map, tables, records)


def _label_table(config: SourceConfig, files: Files, name: str) -> LabelTable:
    """Read the labels of one file, with their names where Hugging Face datasets stored them."""
    where = f"{files.address}/{name}"
    with _opened(files, name) as file:
        _check_schema(config, file.schema_arrow, where)
        class_names = _class_label_names(file.schema_arrow, config.label_column)
        raw = [row[config.label_column] for row in _rows(file, [config.label_column])]

    labels = [_named(value, class_names) for value in raw]
    beyond = sorted({value for value in raw if value.isdecimal()} - {*class_names}, key=int)
    if class_names and beyond and int(beyond[-1]) >= len(class_names):
        raise DataError(
            f"{where}: label {beyond[-1]} has no name, ClassLabel has {len(class_names)}; write the"
            " file with matching features"
        )

    return LabelTable(where, labels, numbers=range(1, len(labels) + 1), names=class_names)


def _named(value: str, names: tuple[str, ...]) -> Label:
    """Return a raw label with its name; -1 has none, it means "no label" in a ClassLabel."""
    position = int(value) if value.isdecimal() else len(names)
    return Label(value, names[position] if position < len(names) else "")


def _class_label_names(schema: Any, column: str) -> tuple[str, ...]:
    """Return the names of a ClassLabel column by their numbers; () where the column is none.

    Hugging Face datasets stores its features as JSON in the schema's metadata: {"info":
    {"features": {"label": {"names": ["a", "b"], "_type": "ClassLabel"}}}}. Features of a nested
    column are nested too.
    """
    try:
        feature = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        for part in column.split("."):
            feature = feature[part]
        return tuple(feature["names"]) if feature["_type"] == "ClassLabel" else ()
    except (KeyError, TypeError, ValueError):
        return ()


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

    need_columns(config, list(_leaves(schema)), (config.label_column,), where)
    image = schema.field(_IMAGE).type if _IMAGE in schema.names else None
    if image is None or not pa.types.is_struct(image) or image.get_field_index("bytes") < 0:
        raise DataError(
            f"{where}: column {_IMAGE!r} must be a struct with 'bytes', as Hugging Face datasets"
            f" writes it; columns: {first_of(schema.names)}"
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

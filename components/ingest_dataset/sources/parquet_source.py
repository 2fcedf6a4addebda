"""Source of images in Parquet files of the Hugging Face image layout.

Column `image` is a struct of `bytes` and `path`; nested columns get dotted names
(`video_info.vid_id`). The labels are read first, alone (Parquet is columnar); the images then
stream, a few rows at a time. pyarrow needs about twice the memory of a file's largest page, which
with large images is a row group (Hugging Face datasets writes 100 images).
"""

import contextlib
import functools
import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

from components.ingest_dataset.sources.config import EXCLUDE, SourceConfig
from components.ingest_dataset.sources.labels import need_columns
from components.ingest_dataset.sources.records import (
    WHOLE,
    Classes,
    Label,
    LabelTable,
    Part,
    Record,
    Source,
)
from components.shared.contracts.documents import parse_json
from components.shared.contracts.errors import ArtifactError, DataError, one_line
from components.shared.contracts.listing import first_of, say
from components.shared.contracts.tables import MOST_FIELD
from components.shared.data.decode import ImageRejectedError
from components.shared.data.files import Files

_IMAGE = "image"
_BATCH_ROWS = 16  # a photograph has some MB
_LABEL_BATCH_ROWS = 65536
_BUFFER_BYTES = 1 << 20  # without it pyarrow reads a row group's column at once


def open_parquet(config: SourceConfig, files: Files, names: list[str]) -> Source:
    """Check schema and labels of every file.

    Raises:
        DataError: the message names file, rows and the remedy.
    """
    tables, without_groups = [], []
    for name in names:
        table, has_groups = _label_table(config, files, name)
        tables.append(table)
        without_groups += [] if has_groups else [name]

    if config.group_column and without_groups:
        say(
            f"{files.address}: no column {config.group_column!r}, every image is its own group"
            f" (in {first_of(without_groups, most=5)})"
        )
    if not any(table.labels for table in tables):
        raise DataError(f"{files.address}: no rows; the Parquet files are empty")

    def records(classes: Classes, part: Part = WHOLE) -> Iterator[Record]:
        for name, table in zip(names, tables, strict=True):
            with _opened(files, name) as file:
                named = [classes[label] for label in table.labels]
                yield from _records(config, file, name, named, table.where, part)

    return Source(config.name, config.label_map, tables, records)


def _label_table(config: SourceConfig, files: Files, name: str) -> tuple[LabelTable, bool]:
    """Read the labels of one file, with their names where Hugging Face datasets stored them.

    Returns them, and whether the file has groups. A label beyond the names has none: -1 means "no
    label" in a ClassLabel.
    """
    where = f"{files.address}/{name}"
    with _opened(files, name) as file:
        has_groups = _check_schema(config, file.schema_arrow, where)
        class_names = _class_label_names(file.schema_arrow, config.label_column)
        rows = _rows(file, [config.label_column], where)
        raw = [row.get(config.label_column, "") for row in rows]

    by_number = {str(number): name for number, name in enumerate(class_names)}
    labels = [Label(value, by_number.get(value, "")) for value in raw]
    nameless = {label.value for label in labels if label.value.isdecimal() and not label.name}
    if class_names and nameless - {*class_names}:
        raise DataError(
            f"{where}: label {first_of(sorted(nameless - {*class_names}), most=5)} has no name,"
            f" ClassLabel has {len(class_names)}; write the file with matching features"
        )

    table = LabelTable(where, labels, numbers=range(1, len(labels) + 1), names=class_names)
    return table, has_groups


def _class_label_names(schema: Any, column: str) -> tuple[str, ...]:
    """Return the names of a ClassLabel column by their numbers; () where the column is none.

    Hugging Face datasets stores its features as JSON in the schema's metadata: {"info":
    {"features": {"label": {"names": ["a", "b"], "_type": "ClassLabel"}}}}. Features of a nested
    column are nested too.
    """
    try:
        metadata = (schema.metadata or {})[b"huggingface"]
        feature = parse_json(metadata, "features")["info"]["features"]
        for part in column.split("."):
            feature = feature[part]
        names = feature["names"] if feature["_type"] == "ClassLabel" else []
    except (KeyError, TypeError, ArtifactError):
        return ()

    is_names = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return tuple(names) if is_names else ()


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
        remedy = "; replace the link by the file" if "link" in str(error) else ""
        raise DataError(f"{where}: {error}{remedy}") from error
    except (ArrowException, OSError, RecursionError, UnicodeDecodeError) as error:
        raise DataError(
            f"{where}: not a readable Parquet file ({one_line(error)[:200]})"
        ) from error


def _check_schema(config: SourceConfig, schema: Any, where: str) -> bool:
    """Raise DataError where a column is missing, twice, or of a type that it cannot have.

    Returns whether the column of the groups has values.
    """
    import pyarrow as pa

    leaves = list(_leaves(schema))
    repeated = [name for name, count in Counter(name for name, _ in leaves).items() if count > 1]
    if repeated:
        raise DataError(f"{where}: columns {first_of(map(repr, repeated))} occur twice; rename one")

    kinds = dict(leaves)
    need_columns(config, list(kinds), (config.label_column,), where)
    image = schema.field(_IMAGE).type if _IMAGE in schema.names else None
    if image is None or not pa.types.is_struct(image) or image.get_field_index("bytes") < 0:
        raise DataError(
            f"{where}: column {_IMAGE!r} must be a struct with 'bytes', as Hugging Face datasets"
            f" writes it; columns: {first_of(schema.names)}"
        )

    problems = [
        f"column {name!r} is {kinds[name]}, must be text, a number or a time"
        for name in (config.label_column, config.group_column, config.timestamp_column)
        if name in kinds and not _is_plain(kinds[name])
    ]
    if not _is_binary(kinds[f"{_IMAGE}.bytes"]):
        problems.append(f"'{_IMAGE}.bytes' is {kinds[f'{_IMAGE}.bytes']}, must be binary")
    if not _is_text(kinds.get(f"{_IMAGE}.path", pa.string())):
        problems.append(f"'{_IMAGE}.path' is {kinds[f'{_IMAGE}.path']}, must be text")
    if problems:
        raise DataError(f"{where}: {'; '.join(problems)}")

    return not pa.types.is_null(kinds.get(config.group_column, pa.null()))


def _records(
    config: SourceConfig, file: Any, name: str, labels: list[str], where: str, part: Part
) -> Iterator[Record]:
    """Yield the records of one file that are in the part, without excluded rows.

    A part has whole row groups, of which the others are not read.
    """
    wanted = [
        column
        for column in file.schema_arrow.names
        if column == _IMAGE or _carried(file.schema_arrow, column)
    ]
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    starts = [0, *itertools.accumulate(sizes)]
    if starts[-1] != len(labels):
        raise DataError(f"{where}: its columns have different numbers of rows")

    for group, size in enumerate(sizes):
        if part.has(config.name, f"{name}#{group}"):
            rows = _rows(file, wanted, where, row_groups=[group])
            of_group = labels[starts[group] : starts[group] + size]
            yield from _numbered(config, rows, name, of_group, where, starts[group] + 1)


def _numbered(
    config: SourceConfig,
    rows: Iterator[dict[str, Any]],
    name: str,
    labels: list[str],
    where: str,
    first: int,
) -> Iterator[Record]:
    """Yield the records of consecutive rows, of which the first has the number `first`."""
    for number, (row, label) in enumerate(itertools.zip_longest(rows, labels), start=first):
        if row is None or label is None:
            raise DataError(f"{where}: its columns have different numbers of rows")
        # A row without an image has no struct, or one without bytes.
        row.pop(_IMAGE, None)
        data, path = row.pop(f"{_IMAGE}.bytes", ""), row.pop(f"{_IMAGE}.path", "")
        if label == EXCLUDE:
            continue

        attributes = {key: value for key, value in row.items() if key != config.label_column}
        if config.timestamp_column:
            attributes["timestamp"] = row.get(config.timestamp_column, "")
        group = row.get(config.group_column, "")
        read = functools.partial(_bytes, data)
        yield Record(config.name, path or f"{name}#{number}", label, group, attributes, read)


def _bytes(data: bytes | str) -> bytes:
    """Return the image's bytes; a missing value is an empty text."""
    if isinstance(data, str):
        raise ImageRejectedError("the Parquet row has no image")
    return data


def _rows(
    file: Any, columns: list[str], where: str, row_groups: list[int] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield rows as flat dictionaries of text; bytes stay bytes. `row_groups`: None for all."""
    size = _BATCH_ROWS if _IMAGE in columns else _LABEL_BATCH_ROWS
    batches = file.iter_batches(
        batch_size=size, columns=columns, use_threads=False, row_groups=row_groups
    )
    for batch in batches:
        read = [_values(batch, name, where) for name in batch.schema.names]
        for row in zip(*read, strict=True):
            yield _flat(dict(zip(batch.schema.names, row, strict=True)), where)


def _values(batch: Any, name: str, where: str) -> list[Any]:
    """Return the values of a column; raise DataError that names it where Python has none."""
    try:
        values: list[Any] = batch.column(name).to_pylist()
    except (ValueError, OverflowError) as error:
        raise DataError(
            f"{where}: column {name!r} has a value that cannot be read ({one_line(error)[:200]});"
            " write the file without this column, or repair it"
        ) from error
    return values


def _flat(values: dict[str, Any], where: str, prefix: str = "") -> dict[str, Any]:
    """Return nested values under dotted names, without lists."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, where, f"{prefix}{key}.")
        elif isinstance(value, bytes):
            flat[prefix + key] = value
        elif not isinstance(value, list):
            flat[prefix + key] = _text(value, prefix + key, where)

    return flat


def _text(value: Any, column: str, where: str) -> str:
    """Return a value as text; raise DataError where no table could hold it."""
    text = "" if value is None else str(value)
    if len(text) > MOST_FIELD:
        raise DataError(
            f"{where}: column {column!r} has a text of {len(text):,} characters, at most"
            f" {MOST_FIELD:,}; write the file without this column"
        )
    return text


def _leaves(schema: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted names and the types of all columns that are no structs."""
    import pyarrow as pa

    for field in schema:
        if pa.types.is_struct(field.type):
            yield from _leaves(field.type, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, field.type


def _carried(schema: Any, column: str) -> bool:
    """Return whether a column can be an attribute: text, number, time or a struct of such."""
    import pyarrow as pa

    kind = schema.field(column).type
    return _is_plain(kind) or pa.types.is_struct(kind)


def _is_plain(kind: Any) -> bool:
    """Return whether a column holds text, numbers or times."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    return not (_is_binary(kind) or pa.types.is_nested(kind))


def _is_binary(kind: Any) -> bool:
    import pyarrow as pa

    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    )


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_null(kind)
    )

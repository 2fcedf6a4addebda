"""Where do images and labels come from? A folder with a CSV, or Parquet in the Hugging Face image layout.

Reading yields records whose label is already mapped; anything wrong with the table itself is a DataError, anything
wrong with one file is a reject.
"""

import csv
import difflib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from components.shared.config import unknown_key
from components.shared.data.dataset import SAMPLE_COLUMNS
from components.shared.data.decode import ImageRejectedError
from components.shared.errors import ConfigError, DataError

EXCLUDE = "exclude"
_PARQUET_BATCH_ROWS = 256


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """How to read one source; fields as in IngestConfig."""

    data: str
    source_name: str
    csv: str
    path_column: str
    label_column: str
    group_column: str
    timestamp_column: str
    label_map: dict[str, str]


@dataclass(frozen=True)
class Record:
    """One labelled file. `read()` gives its bytes or raises ImageRejectedError; label is a class name."""

    source: str
    path: str
    label: str
    group: str
    attributes: dict[str, str]
    read: Callable[[], bytes]


def parse_sources(first: SourceConfig, extra_sources: str) -> list[SourceConfig]:
    """`first` and the JSON list `extra_sources`, whose entries override its fields. Raises ConfigError."""
    try:
        entries = json.loads(extra_sources) if extra_sources else []
    except ValueError as error:
        raise ConfigError(f"extra_sources={extra_sources!r} is not valid JSON ({error})") from error
    if not isinstance(entries, list) or not all(
        isinstance(e, dict) and isinstance(e.get("data"), str) for e in entries
    ):
        raise ConfigError(f"extra_sources={extra_sources!r} must be a JSON list of mappings, each with 'data'")
    known = list(vars(first))
    problems = [unknown_key(key, known) for entry in entries for key in entry if key not in known]
    if problems:
        raise ConfigError("extra_sources: " + "; ".join(problems))
    sources = [first, *(SourceConfig(**{**vars(first), "source_name": "", **entry}) for entry in entries)]
    named = [SourceConfig(**{**vars(s), "source_name": s.source_name or _default_name(s.data)}) for s in sources]
    names = [source.source_name for source in named]
    if len(set(names)) != len(names):
        raise ConfigError(f"source_name must be unique, got {names}; name them in extra_sources")
    return named


def read_source(config: SourceConfig, class_names: tuple[str, ...]) -> Iterator[Record]:
    """Records of one source; those mapped to "exclude" are left out. Raises DataError for a wrong table or place."""
    place = Path(config.data)
    if not place.exists():
        raise DataError(f"data={config.data!r} does not exist")
    files = [place] if place.is_file() else sorted(place.glob("*.parquet"))
    if place.is_file() and place.suffix != ".parquet":
        raise DataError(f"data={config.data!r} is a file but not .parquet; give a folder with a CSV or Parquet")
    if files:
        for file in files:
            yield from _read_parquet(config, class_names, file, file.name)
        return
    table = place / config.csv
    if not table.is_file():
        raise DataError(f"{table} does not exist; name the CSV with csv=..., or give Parquet files")
    yield from _read_csv(config, class_names, table.read_bytes(), str(table), lambda path: _local_reader(place, path))


def _read_csv(
    config: SourceConfig,
    class_names: tuple[str, ...],
    table: bytes,
    name: str,
    reader: Callable[[str], Callable[[], bytes]],
) -> Iterator[Record]:
    try:
        text = table.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error
    rows = csv.DictReader(io.StringIO(text))
    _need_columns(name, list(rows.fieldnames or []), (config.path_column, config.label_column))
    seen: dict[str, int] = {}
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise DataError(f"{name} row {number}: {len([v for v in row.values() if v is not None])} fields, expected "
                            f"{len(rows.fieldnames or [])}")  # fmt: skip
        path = row[config.path_column]
        if path in seen:
            raise DataError(f"{name} row {number}: path {path!r} was listed in row {seen[path]} already")
        seen[path] = number
        _refuse_escape(name, number, path)
        label = _mapped(config, class_names, row[config.label_column], f"{name} row {number}")
        if label != EXCLUDE:
            yield _record(config, path, label, row, reader(path))
    if not seen:
        raise DataError(f"{name}: no rows")


def _read_parquet(config: SourceConfig, class_names: tuple[str, ...], source: Any, name: str) -> Iterator[Record]:
    """Stream one Parquet file: `image` is a struct of bytes and path, nested columns get dotted names."""
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    try:
        with pq.ParquetFile(source) as file:
            _need_columns(name, file.schema_arrow.names, ("image", config.label_column))
            names = [column for column in file.schema_arrow.names if column != "image"]
            number = 0
            for batch in file.iter_batches(batch_size=_PARQUET_BATCH_ROWS):
                for values in batch.to_pylist():
                    image = values.pop("image") or {}
                    row = _flattened({key: values[key] for key in names})
                    label = _mapped(config, class_names, row[config.label_column], f"{name} row {number}")
                    path = f"{name}#{number:07d}{PurePosixPath(image.get('path') or '').suffix.lower()}"
                    number += 1
                    if label != EXCLUDE:
                        data = image.get("bytes") or b""
                        yield _record(config, path, label, row, lambda data=data: data)  # type: ignore[misc]
    except ArrowException as error:
        raise DataError(f"{name}: not a readable Parquet file ({' '.join(str(error).split())[:200]})") from error


def _local_reader(root: Path, path: str) -> Callable[[], bytes]:
    def read() -> bytes:
        file = root / path
        if not file.resolve().is_relative_to(root.resolve()):
            raise ImageRejectedError("symbolic link out of the source")
        if not file.is_file():
            raise ImageRejectedError("file does not exist")
        return file.read_bytes()

    return read


def _record(config: SourceConfig, path: str, label: str, row: dict[str, str], read: Callable[[], bytes]) -> Record:
    used = (config.path_column, config.label_column)
    attributes = {f"raw_{key}" if key in SAMPLE_COLUMNS else key: v for key, v in row.items() if key not in used}
    if config.timestamp_column and config.timestamp_column in row:
        attributes["timestamp"] = row[config.timestamp_column]
    # An empty group would unite everything ungrouped; such an image is its own group.
    group = row.get(config.group_column, "") if config.group_column else ""
    return Record(config.source_name, path, label, f"{config.source_name}/{group or path}", attributes, read)


def _mapped(config: SourceConfig, class_names: tuple[str, ...], raw: str, where: str) -> str:
    label = config.label_map.get(raw, raw)
    if label != EXCLUDE and label not in class_names:
        raise DataError(f"{where}: label {raw!r} is in neither label_map nor class_names; add it to label_map")
    return label


def _need_columns(name: str, found: list[str], needed: tuple[str, ...]) -> None:
    for column in needed:
        if column not in found:
            close = difflib.get_close_matches(column, found, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise DataError(f"{name}: no column {column!r}; {hint}columns: {', '.join(found)}")


def _refuse_escape(name: str, number: int, path: str) -> None:
    pure = PurePosixPath(path)
    if not path or pure.is_absolute() or ".." in pure.parts or "\\" in path or "\0" in path:
        raise DataError(f"{name} row {number}: path {path!r} leaves the source; paths must be relative, without '..'")


def _flattened(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flattened(value, f"{prefix}{key}.")
        elif not isinstance(value, bytes | list):
            flat[f"{prefix}{key}"] = "" if value is None else str(value)
    return flat


def _default_name(data: str) -> str:
    return PurePosixPath(data.rstrip("/")).stem or "source"

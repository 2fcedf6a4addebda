"""Source of images that a labels CSV lists, with paths relative to the CSV's folder."""

import csv
import functools
import io
from collections.abc import Iterator
from pathlib import PurePosixPath

from components.ingest_dataset.sources.config import EXCLUDE, SourceConfig
from components.ingest_dataset.sources.files import Files
from components.ingest_dataset.sources.labels import map_labels, need_columns
from components.ingest_dataset.sources.records import Record, Source
from components.shared.contracts.errors import DataError
from components.shared.data.decode import ImageRejectedError

_NAMED_PROBLEMS = 10
_FIRST_ROW = 2  # as a spreadsheet counts: the header is row 1


def open_csv(config: SourceConfig, class_names: tuple[str, ...], files: Files) -> Source:
    """Read and check the whole table.

    Raises:
        DataError: the message names rows, values and the remedy.
    """
    where = f"{files.address}/{config.csv}"
    try:
        data = files.read(config.csv)
    except ImageRejectedError as error:
        raise DataError(f"{where}: {error}") from error

    header, rows = _table(data, where)
    need_columns(config, header, (config.path_column,), where)
    raw = [row[config.label_column] for row in rows]
    labels = map_labels(config, class_names, raw, where, first_row=_FIRST_ROW)
    paths = _checked_paths([row[config.path_column] for row in rows], where)
    used = [row for row in zip(paths, labels, rows, strict=True) if row[1] != EXCLUDE]
    if not used:
        raise DataError(
            f"{where}: no rows" + (f" are left, label_map excludes all {len(rows)}" if rows else "")
        )

    if config.group_column not in ("", *header):
        print(f"{where}: no column {config.group_column!r}, every image is its own group")

    def records() -> Iterator[Record]:
        for path, label, row in used:
            own = (config.path_column, config.label_column)
            attributes = {name: value for name, value in row.items() if name not in own}
            if config.timestamp_column:
                attributes["timestamp"] = row[config.timestamp_column]
            read = functools.partial(files.read, path)
            yield Record(
                config.name, path, label, row.get(config.group_column, ""), attributes, read
            )

    return Source(config.name, len(used), records)


def _table(data: bytes, where: str) -> tuple[list[str], list[dict[str, str]]]:
    """Return header and rows of a CSV; refuse one that is malformed or not comma-separated."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error

    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except csv.Error as error:
        raise DataError(f"{where}: not a valid CSV ({error})") from error

    if not rows:
        raise DataError(f"{where}: empty file, no rows")

    header = rows.pop(0)
    separator = next((s for s in ";\t|" if s in header[0]), "") if len(header) == 1 else ""
    if separator:
        raise DataError(f"{where}: columns are separated by {separator!r}; save it with commas")

    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise DataError(f"{where}: columns {repeated} occur twice; rename or remove one")

    wrong = [
        f"row {number} has {len(row)} fields, expected {len(header)}"
        for number, row in enumerate(rows, start=_FIRST_ROW)
        if len(row) != len(header)
    ]

    _refuse(wrong, where)

    return header, [dict(zip(header, row, strict=True)) for row in rows]


def _checked_paths(raw: list[str], where: str) -> list[str]:
    """Return normalised paths; refuse those that leave the folder, and an image listed twice."""
    problems: list[str] = []
    row_of: dict[str, int] = {}
    for row, text in enumerate(raw, start=_FIRST_ROW):
        path = PurePosixPath(text)
        if not text or "\0" in text:
            problems.append(f"row {row}: path {text!r} is empty or not a path")
        elif path.is_absolute() or ".." in path.parts:
            problems.append(
                f"row {row}: path {text!r} leaves the source; paths must be relative, without '..'"
            )
        elif "\\" in text:
            problems.append(f"row {row}: path {text!r} has a backslash; use '/'")
        elif row_of.setdefault(path.as_posix(), row) != row:
            problems.append(
                f"row {row}: path {text!r} was listed in row {row_of[path.as_posix()]}; remove one"
            )

    _refuse(problems, where)

    return list(row_of)


def _refuse(problems: list[str], where: str) -> None:
    """Raise DataError with the first problems, where there are any."""
    if problems:
        n_more = len(problems) - _NAMED_PROBLEMS
        more = f"; and {n_more} more" if n_more > 0 else ""
        raise DataError(f"{where} " + "; ".join(problems[:_NAMED_PROBLEMS]) + more)

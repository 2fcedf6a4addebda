"""Source of images that a labels CSV lists, with paths relative to the CSV's folder."""

import csv
import functools
import io
from collections.abc import Iterator
from pathlib import PurePosixPath

from components.ingest_dataset.sources.config import EXCLUDE, SourceConfig
from components.ingest_dataset.sources.files import Files
from components.ingest_dataset.sources.labels import need_columns
from components.ingest_dataset.sources.records import Classes, Label, LabelTable, Record, Source
from components.shared.contracts.errors import DataError
from components.shared.contracts.listing import first_of
from components.shared.data.decode import ImageRejectedError

_FIRST_ROW = 2  # as a spreadsheet counts: the header is row 1


def open_csv(config: SourceConfig, files: Files) -> Source:
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
    need_columns(config, header, (config.path_column, config.label_column), where)
    if not rows:
        raise DataError(f"{where}: no rows")

    labels = [Label(row[config.label_column]) for row in rows]
    paths = _checked_paths([row[config.path_column] for row in rows], where)
    if config.group_column not in ("", *header):
        print(f"{where}: no column {config.group_column!r}, every image is its own group")

    def records(classes: Classes) -> Iterator[Record]:
        for path, label, row in zip(paths, labels, rows, strict=True):
            if classes[label] == EXCLUDE:
                continue

            own = (config.path_column, config.label_column)
            attributes = {name: value for name, value in row.items() if name not in own}
            if config.timestamp_column:
                attributes["timestamp"] = row[config.timestamp_column]
            group = row.get(config.group_column, "")
            read = functools.partial(files.read, path)
            yield Record(config.name, path, classes[label], group, attributes, read)

    table = LabelTable(where, labels, first_row=_FIRST_ROW)
    return Source(config.name, config.label_map, [table], records)


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
        raise DataError(f"{where} {first_of(problems, separator='; ')}")

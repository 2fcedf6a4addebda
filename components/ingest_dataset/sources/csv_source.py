"""Source of images that a labels CSV lists, with paths relative to the CSV's folder."""

import functools
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath

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
from components.shared.contracts.errors import DataError
from components.shared.contracts.listing import first_of, say, shown
from components.shared.contracts.tables import numbered_rows
from components.shared.data.decode import ImageRejectedError
from components.shared.data.files import Files


def open_csv(config: SourceConfig, files: Files) -> Source:
    """Read and check the whole table.

    Raises:
        DataError: the message names lines, values and the remedy.
    """
    where = f"{files.address}/{config.csv}"
    try:
        data = files.read(config.csv)
    except ImageRejectedError as error:
        raise DataError(f"{where}: {error}") from error

    header, lines, rows = _table(data, where)
    need_columns(config, header, (config.path_column, config.label_column), where)
    if not rows:
        raise DataError(f"{where}: no rows")

    labels = [Label(row[config.label_column]) for row in rows]
    paths = _checked_paths([row[config.path_column] for row in rows], lines, where)
    if config.group_column not in ("", *header):
        say(f"{where}: no column {config.group_column!r}, every image is its own group")

    def records(classes: Classes, part: Part = WHOLE) -> Iterator[Record]:
        for path, label, row in zip(paths, labels, rows, strict=True):
            if classes[label] == EXCLUDE or not part.has(config.name, path):
                continue

            own = (config.path_column, config.label_column)
            attributes = {name: value for name, value in row.items() if name not in own}
            if config.timestamp_column:
                attributes["timestamp"] = row[config.timestamp_column]
            group = row.get(config.group_column, "")
            read = functools.partial(files.read, path)
            yield Record(config.name, path, classes[label], group, attributes, read)

    table = LabelTable(where, labels, numbers=lines, unit="line")
    return Source(config.name, config.label_map, [table], records)


def _table(data: bytes, where: str) -> tuple[list[str], list[int], list[dict[str, str]]]:
    """Return header, line numbers and rows of a CSV.

    Blank lines are skipped. Raises DataError for what is malformed or not comma-separated.
    """
    numbered = numbered_rows(io.BytesIO(data), where, error=DataError)
    filled = [(line, row) for line, row in numbered if row]
    if not filled:
        raise DataError(f"{where}: empty file, no rows")

    _, header = filled.pop(0)
    separator = next((s for s in ";\t|" if s in header[0]), "") if len(header) == 1 else ""
    if separator:
        raise DataError(f"{where}: columns are separated by {separator!r}; save it with commas")

    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated:
        raise DataError(
            f"{where}: columns [{first_of(map(repr, sorted(repeated)))}] occur twice; rename or"
            " remove one"
        )

    _refuse(
        (
            f"line {line} has {len(row)} fields, expected {len(header)}"
            for line, row in filled
            if len(row) != len(header)
        ),
        where,
    )

    lines = [line for line, _ in filled]
    return header, lines, [dict(zip(header, row, strict=True)) for _, row in filled]


def _checked_paths(raw: Sequence[str], lines: Sequence[int], where: str) -> list[str]:
    """Return normalised paths; refuse those that leave the folder, and an image listed twice."""
    problems: list[str] = []
    line_of: dict[str, int] = {}
    for line, text in zip(lines, raw, strict=True):
        path = PurePosixPath(text)
        if not text or "\0" in text:
            problems.append(f"line {line}: path {shown(text)} is empty or not a path")
        elif path.is_absolute() or ".." in path.parts:
            problems.append(
                f"line {line}: path {shown(text)} leaves the source; paths must be relative,"
                " without '..'"
            )
        elif "\\" in text:
            problems.append(f"line {line}: path {shown(text)} has a backslash; use '/'")
        elif line_of.setdefault(path.as_posix(), line) != line:
            problems.append(
                f"line {line}: path {shown(text)} was listed in line"
                f" {line_of[path.as_posix()]}; remove one"
            )

    _refuse(problems, where)

    return list(line_of)


def _refuse(problems: Iterable[str], where: str) -> None:
    """Raise DataError with the first problems, where there are any."""
    found = list(problems)
    if found:
        raise DataError(f"{where} {first_of(found, separator='; ')}")

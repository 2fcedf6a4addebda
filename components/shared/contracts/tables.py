"""The one writer and reader of CSV tables in artifacts.

Every table is CSV, those that only programs read too, and none is Parquet: the steps that train
read `samples.csv` without pyarrow in memory, artifacts of schema 1 stay readable, equal rows are
equal bytes under every version of every library, and a user can look at any table. What CSV lacks,
this module adds: a table is read back after it is written, so that no artifact with a table that
cannot be read gets a manifest, and a table for people has no formula and no control character.

Python's own writer leaves a lone carriage return bare, which its reader takes for the end of a row
(until Python 3.13), and its reader refuses a field of more than 128 KiB that its writer wrote.
"""

import contextlib
import csv
import io
import itertools
import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TextIO

from components.shared.contracts.errors import ArtifactError, PermanentError
from components.shared.contracts.listing import first_of, printable, shown

MOST_FIELD = 1 << 20  # characters: a long note of a user's table, but no image in a text column
MOST_ROW = 16 << 20  # characters: 20,000 columns of some length
MOST_BYTES = 4 << 30  # of one table: tens of millions of samples
_MOST_DIGITS = 18  # of an integer: what int64 holds, whatever the digits
_MOST_CHARACTERS = 40  # of a number: more than Python writes of any
_FORMULA = ("=", "+", "-", "@")
_MOST_SHOWN = 32_767  # characters: what a cell of a spreadsheet holds

# Python's limit is one for the process; the tables of users are read by this module too.
csv.field_size_limit(MOST_FIELD)


def write_table(
    file: Path,
    columns: Sequence[object],
    rows: Iterable[Iterable[object]],
    *,
    for_people: bool = False,
) -> None:
    """Write a table into an artifact's staging directory.

    Args:
        file: the CSV.
        columns: its header.
        rows: its rows; None is an empty field.
        for_people: the table is for people, and steps read no text of the user from it: what a
            spreadsheet takes for a formula gets an apostrophe (as OWASP's "CSV injection" has it),
            control characters and what is no Unicode are escaped, and long texts are cut.

    Raises:
        ArtifactError: a value is too long or no Unicode, or what was written is not what is read.
    """
    with file.open("wb") as stream:
        written = _write(stream, file.name, columns, rows, for_people=for_people)

    with file.open("rb") as data:
        _compare(data, file.name, written)


def table_bytes(columns: Sequence[object], rows: Iterable[Iterable[object]], name: str) -> bytes:
    """Return a table for programs as bytes; the rest as in `write_table`."""
    stream = io.BytesIO()
    written = _write(stream, name, columns, rows, for_people=False)
    _compare(stream, name, written)
    return stream.getvalue()


def read_table(file: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """Yield the rows of an artifact's table, every one with a text for each column.

    Args:
        file: the CSV.
        columns: those that it must have; others are read too.

    Raises:
        ArtifactError: the file is missing, too large, not UTF-8 or not CSV, lacks a column, has one
            twice, or a row of another length; the message has the line.
    """
    try:
        with file.open("rb") as data:
            yield from parse_table(data, str(file), columns)
    except OSError as error:
        raise ArtifactError(f"{file}: cannot be read ({error.strerror})") from error


def parse_table(data: IO[bytes], where: str, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """Yield the rows of a table; `where` names it in messages, the rest as in `read_table`."""
    with contextlib.closing(numbered_rows(data, where)) as rows:
        _, header = next(rows, (0, []))
        missing = [name for name in columns if name not in header]
        if missing:
            raise ArtifactError(f"{where}: no column {first_of(missing)}")
        if len(set(header)) != len(header):
            raise ArtifactError(f"{where}: a column occurs twice")

        for line, row in rows:
            if len(row) != len(header):
                raise ArtifactError(
                    f"{where}: line {line} has {len(row)} fields, expected {len(header)}"
                )
            yield dict(zip(header, row, strict=True))


def numbered_rows(
    data: IO[bytes], where: str, *, error: type[PermanentError] = ArtifactError
) -> Generator[tuple[int, list[str]], None, None]:
    """Yield the rows of a CSV, each with the number of the line on which it begins, from 1.

    Args:
        data: the CSV; a byte order mark is skipped.
        where: its name in messages.
        error: what is raised.

    Raises:
        PermanentError: of the class `error`: the CSV is malformed, not UTF-8, or too large.
    """
    if data.seek(0, io.SEEK_END) > MOST_BYTES:
        raise error(f"{where}: more than {MOST_BYTES} bytes")
    data.seek(0)

    stream = io.TextIOWrapper(data, encoding="utf-8-sig", newline="")
    lines = _Lines(stream, where, error)
    reader = csv.reader(lines, strict=True)
    first = 1

    try:
        for row in reader:
            yield first, row
            first = reader.line_num + 1
            lines.in_row = 0
    except UnicodeDecodeError as problem:
        raise error(
            f"{where}: not UTF-8 ({problem.reason} in or after line {first}); save it as UTF-8"
        ) from problem
    except csv.Error as problem:
        raise error(f"{where}: not a valid CSV (line {first}: {problem})") from problem
    finally:
        stream.detach()


def integer(text: str, where: str) -> int:
    """Return the integer that a field holds; raise ArtifactError, which says `where`, otherwise."""
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= _MOST_DIGITS):
        raise ArtifactError(f"{where}: {shown(text)} is not an integer")
    return int(text)


def number(text: str, where: str) -> float | None:
    """Return the finite number that a field holds, None for an empty field; raises as `integer`."""
    if not text:
        return None
    try:
        value = float(text) if len(text) <= _MOST_CHARACTERS and "_" not in text else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ArtifactError(f"{where}: {shown(text)} is not a number")
    return value


class _Lines:
    """Lines of a table, of which no row is read into memory beyond MOST_ROW characters."""

    def __init__(self, stream: TextIO, where: str, error: type[PermanentError]) -> None:
        self._stream, self._where, self._error = stream, where, error
        self.in_row = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._stream.readline(MOST_ROW + 1)
        if not line:
            raise StopIteration

        self.in_row += len(line)
        if self.in_row > MOST_ROW:
            raise self._error(f"{self._where}: a row has more than {MOST_ROW} characters")
        return line


class _Rows:
    """Target of csv.writer: rows that end with a line feed.

    The writer itself ends them with both characters, because it then quotes a field for either.
    """

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._stream, self._name = stream, name

    def write(self, row: str) -> None:
        """Write one row; raise ArtifactError where it is too long or no Unicode."""
        if len(row) > MOST_ROW:
            raise ArtifactError(f"{self._name}: a row has more than {MOST_ROW} characters")

        try:
            self._stream.write((row.removesuffix("\r\n") + "\n").encode())
        except UnicodeEncodeError as error:
            raise ArtifactError(f"{self._name}: {shown(row)} is no valid Unicode") from error


def _write(
    stream: IO[bytes],
    name: str,
    columns: Sequence[object],
    rows: Iterable[Iterable[object]],
    *,
    for_people: bool,
) -> int:
    """Write header and rows; return a fingerprint of their texts, valid in this process."""
    writer = csv.writer(_Rows(stream, name), lineterminator="\r\n")
    fingerprint = 0

    for values in itertools.chain([columns], rows):
        row = ["" if value is None else str(value) for value in values]
        if for_people:
            row = [_for_people(text) for text in row]

        longest = max(map(len, row))
        if longest > MOST_FIELD:
            raise ArtifactError(f"{name}: a field has {longest} characters, at most {MOST_FIELD}")
        writer.writerow(row)
        fingerprint = hash((fingerprint, *row))

    return fingerprint


def _compare(data: IO[bytes], name: str, written: int) -> None:
    """Raise ArtifactError where a table does not read as what was written."""
    fingerprint = 0
    for _, row in numbered_rows(data, name):
        fingerprint = hash((fingerprint, *row))
    if fingerprint != written:
        raise ArtifactError(f"{name}: reads otherwise than it was written; is the disk damaged?")


def _for_people(text: str) -> str:
    """Return the text of a field that neither a terminal nor a spreadsheet acts on."""
    text = printable(text[:_MOST_SHOWN])[:_MOST_SHOWN]
    return f"'{text}" if text.startswith(_FORMULA) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

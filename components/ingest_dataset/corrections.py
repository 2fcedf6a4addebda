"""Corrections of the data by a person: images to leave out, and labels to replace.

Each of the options `exclude` and `relabel` names a CSV whose column `id` has the ids of samples, as
the tables of audit_labels have it; other columns are not read. Nothing is corrected that no row
names, and no source is changed: the table of what was done is part of the data set.
"""

import dataclasses
import io
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Self

from components.ingest_dataset.check import Checked
from components.ingest_dataset.config import IngestConfig
from components.shared.contracts.errors import DataError
from components.shared.contracts.listing import first_of, shown
from components.shared.contracts.tables import numbered_rows, write_table
from components.shared.storage.places import read_place

TABLE = "corrections.csv"
EXCLUDED, RELABELLED = "excluded", "relabelled"
_ID = "id"
# A person who agrees with a suggestion leaves its row of suspects.csv as it is.
_LABELS = ("label", "suggested_label")
_SAMPLE_ID = re.compile(r"[0-9a-f]{16}")
_COLUMNS = ("action", "sample_id", "source", "path", "given_label", "label", "file", "line")


@dataclass(frozen=True)
class Row:
    """One row of a file.

    file: its name without folders; line: where the row is, from 1; label: the new class name, empty
    in a row of `exclude`.
    """

    file: str
    line: int
    label: str = ""


@dataclass(frozen=True)
class Applied:
    """What was done to one file of the sources.

    action: `EXCLUDED` or `RELABELLED`; given_label: class name that its source says.
    """

    action: str
    sample_id: str
    source: str
    path: str
    given_label: str
    row: Row


@dataclass(frozen=True)
class Corrections:
    """The rows of both files by sample id."""

    excluded: Mapping[str, Row] = field(default_factory=dict)
    relabelled: Mapping[str, Row] = field(default_factory=dict)

    @classmethod
    def read(cls, config: IngestConfig) -> Self:
        """Read the files that are set.

        Raises:
            DataError: a file does not exist or is no such table, an id is none, or stands in both.
        """
        excluded = _rows("exclude", config.exclude, ()) if config.exclude else {}
        relabelled = _rows("relabel", config.relabel, _LABELS) if config.relabel else {}

        both = [
            f"{sample_id} (lines {excluded[sample_id].line} and {relabelled[sample_id].line})"
            for sample_id in excluded
            if sample_id in relabelled
        ]
        if both:
            raise DataError(
                f"exclude={config.exclude!r} and relabel={config.relabel!r} both name"
                f" {first_of(both)}; remove each id from one of them"
            )

        return cls(excluded, relabelled)

    def check_classes(self, class_names: Collection[str]) -> None:
        """Raise DataError where a new label is no class."""
        wrong = [
            f"line {row.line}: {shown(row.label)}"
            for row in self.relabelled.values()
            if row.label not in class_names
        ]
        if wrong:
            raise DataError(
                f"relabel: labels that are no class: {first_of(wrong)}; the classes are"
                f" {first_of(class_names)}"
            )

    def with_labels(self, checked: Sequence[Checked]) -> list[Checked]:
        """Return the files with corrected labels; copies of one image are corrected together.

        Raises DataError where an id is that of no usable file.
        """
        self._refuse_unknown({_sample_id(item) for item in checked})

        corrected = []
        for item in checked:
            row = self.relabelled.get(_sample_id(item))
            if row is not None:
                described = dataclasses.replace(item.description, label=row.label)
                item = dataclasses.replace(item, description=described)
            corrected.append(item)
        return corrected

    def applied(self, checked: Sequence[Checked]) -> list[Applied]:
        """Return what becomes of the files, which have the labels of their sources.

        A row whose label is the source's own, because the source was corrected since, does nothing.
        """
        found = []
        for item in checked:
            said, sample_id = item.description, _sample_id(item)
            for action, rows in ((EXCLUDED, self.excluded), (RELABELLED, self.relabelled)):
                row = rows.get(sample_id)
                if row is not None and row.label != said.label:
                    found.append(
                        Applied(action, sample_id, said.source, said.path, said.label, row)
                    )
        return found

    def _refuse_unknown(self, known: Collection[str]) -> None:
        problems = []
        for option, rows in (("exclude", self.excluded), ("relabel", self.relabelled)):
            unknown = [
                f"{sample_id} (line {row.line})"
                for sample_id, row in rows.items()
                if sample_id not in known
            ]
            if unknown:
                problems.append(f"{option}: {len(unknown)} of {len(rows)} ids: {first_of(unknown)}")
        if problems:
            raise DataError(
                f"ids of no image of the data: {'; '.join(problems)}; remove these rows, or give"
                " the data that they were written for (an id is the first 16 hex digits of the"
                " file's SHA-256)"
            )


def counts(applied: Sequence[Applied]) -> dict[str, int]:
    """Return the numbers of images, not of their copies, for the manifest and the report."""
    return {
        f"n_{action}": len({entry.sample_id for entry in applied if entry.action == action})
        for action in (EXCLUDED, RELABELLED)
    }


def write_corrections(file: Path, applied: Sequence[Applied]) -> None:
    """Write a row for each file that was left out or got another label."""
    rows = (
        (
            entry.action,
            entry.sample_id,
            entry.source,
            entry.path,
            entry.given_label,
            entry.row.label,
            entry.row.file,
            entry.row.line,
        )
        for entry in applied
    )
    write_table(file, _COLUMNS, rows, for_people=True)


def _sample_id(item: Checked) -> str:
    """Return the id that the file has, or would have, as a sample; empty for a refused file."""
    return item.description.sha256[:16]


def _rows(option: str, place: str, label_columns: Sequence[str]) -> dict[str, Row]:
    """Return the rows of a file by id; the first of `label_columns` that it has is the label's."""
    where = f"{option}={shown(place)}"
    numbered = numbered_rows(io.BytesIO(read_place(option, place)), where, error=DataError)
    filled = [(line, row) for line, row in numbered if row]
    header = filled.pop(0)[1] if filled else []
    column = next((name for name in label_columns if name in header), "")
    _check_header(header, where, needs_label=bool(label_columns) and not column)

    problems: list[str] = []
    found: dict[str, Row] = {}
    for line, values in filled:
        if len(values) != len(header):
            problems.append(f"line {line} has {len(values)} fields, expected {len(header)}")
            continue
        sample_id = values[header.index(_ID)]
        row = Row(PurePosixPath(place).name, line, values[header.index(column)] if column else "")
        problems += _row_problems(sample_id, row, found, needs_label=bool(column))
        found.setdefault(sample_id, row)

    if problems:
        raise DataError(f"{where}: {first_of(problems, separator='; ')}")
    return found


def _check_header(header: Sequence[str], where: str, *, needs_label: bool) -> None:
    """Raise DataError where a needed column is missing or stands twice."""
    missing = [] if _ID in header else [_ID]
    missing += [" or ".join(_LABELS)] if needs_label else []
    if missing:
        raise DataError(
            f"{where}: no column {first_of(missing)}; its columns are {first_of(header) or 'none'}"
        )
    if len(set(header)) != len(header):
        raise DataError(f"{where}: a column occurs twice; remove one")


def _row_problems(
    sample_id: str, row: Row, found: Mapping[str, Row], *, needs_label: bool
) -> Iterator[str]:
    """Yield what is wrong with one row; rows before it are in `found`."""
    if not _SAMPLE_ID.fullmatch(sample_id):
        yield (
            f"line {row.line}: id {shown(sample_id)} is not 16 hex digits (spreadsheets change ids"
            " that look like numbers: import the column as text)"
        )
    if needs_label and not row.label:
        yield f"line {row.line} has no label"
    if found.get(sample_id, row).label != row.label:
        yield (
            f"line {row.line}: {sample_id} is {shown(row.label)}, line {found[sample_id].line} says"
            f" {shown(found[sample_id].label)}"
        )

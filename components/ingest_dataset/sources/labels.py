"""Checks of labels and columns that CSV and Parquet sources share."""

import difflib
from collections.abc import Sequence

from components.ingest_dataset.sources.config import EXCLUDE, SourceConfig
from components.shared.contracts.errors import DataError

_NAMED_ROWS = 10
_DEFAULT_GROUP_COLUMN = SourceConfig().group_column


def map_labels(
    config: SourceConfig,
    class_names: Sequence[str],
    raw: Sequence[str],
    where: str,
    *,
    first_row: int,
) -> list[str]:
    """Map raw labels to class names or "exclude".

    Args:
        config: the source, with its label map.
        class_names: the classes.
        raw: raw label of each row.
        where: name of the table in error messages.
        first_row: number of the first row in error messages.

    Raises:
        DataError: the message names every unknown value and its rows.
    """
    labels = [config.label_map.get(value, value) for value in raw]
    unknown: dict[str, list[int]] = {}
    for row, (value, label) in enumerate(zip(raw, labels, strict=True), start=first_row):
        if label not in class_names and label != EXCLUDE:
            unknown.setdefault(value, []).append(row)

    if unknown:
        listed = "; ".join(
            f"{_rows(rows)}: label {value!r} is in neither label_map nor class_names"
            for value, rows in sorted(unknown.items())
        )
        raise DataError(
            f"{where} {listed}; add it to label_map as one of {', '.join(class_names)} or"
            f" {EXCLUDE!r}, or name another label_column"
        )

    return labels


def need_columns(
    config: SourceConfig, found: Sequence[str], needed: Sequence[str], where: str
) -> None:
    """Raise DataError where a needed column, or one that the user has named, does not exist.

    The default group column may be absent: then every image is its own group. A name given by the
    user must exist, because a misspelt one would silently let a drive cross the splits.
    """
    wanted = [*needed, config.label_column]
    wanted += [config.timestamp_column] if config.timestamp_column else []
    wanted += (
        [config.group_column] if config.group_column not in ("", _DEFAULT_GROUP_COLUMN) else []
    )
    problems = []

    for column in wanted:
        if column not in found:
            close = difflib.get_close_matches(column, found, n=1)
            problems.append(
                f"no column {column!r}" + (f"; did you mean {close[0]!r}?" if close else "")
            )

    if problems:
        raise DataError(f"{where}: {'; '.join(problems)}; columns: {', '.join(found)}")


def _rows(rows: list[int]) -> str:
    """Return the row numbers in words, the first ones by number."""
    named = ", ".join(map(str, rows[:_NAMED_ROWS]))
    more = f" and {len(rows) - _NAMED_ROWS} more" if len(rows) > _NAMED_ROWS else ""
    return f"row{'s' if len(rows) > 1 else ''} {named}{more}"

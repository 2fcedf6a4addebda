"""The table of scores: its columns, and its parts.

Equal answers give equal bytes: a table has neither a time nor the name of a machine in it.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from components.shared.contracts.errors import ArtifactError, one_line

if TYPE_CHECKING:
    import pyarrow as pa

FILE = "scores.parquet"
_PARTS_PER_GROUP = 128  # of rows in the file: 32,768 images, a few megabytes


class Row(NamedTuple):
    """What is said of one image.

    Attributes:
        path: Name below the address.
        decision: Name of an outcome, of several joined by " or ", or "defer"; None where the image
            cannot be read.
        probability: Calibrated, in [0, 1]: of the positive class, or of the most probable one.
        views: Number of views that were looked at; None of a model of one view.
        error: Why the image cannot be read.
    """

    path: str
    decision: str | None = None
    probability: float | None = None
    views: int | None = None
    error: str | None = None


def write_part(folder: Path, rows: Iterable[Row]) -> None:
    """Write the rows of one part."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = zip(*rows, strict=True)
    arrays = [
        pa.array(values, field.type) for values, field in zip(columns, _schema(), strict=True)
    ]
    pq.write_table(pa.Table.from_arrays(arrays, schema=_schema()), folder / FILE)


def read_part(folder: Path, names: Sequence[str]) -> "pa.Table":
    """Return the rows of a part, which are those of the images `names`; raise ArtifactError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(folder / FILE, schema=_schema())
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(f"{folder / FILE}: is no table of scores ({one_line(error)})") from None
    if table.column("path").to_pylist() != list(names):
        raise ArtifactError(f"{folder / FILE}: has other images than the listing")
    return table


def write_table(
    file: Path, parts: Sequence[Path], names: Sequence[Sequence[str]], about: dict[str, str]
) -> None:
    """Write all parts as one file, `about` among its metadata.

    The file has the order of the parts, and few of them are in memory at a time.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetWriter(file, _schema().with_metadata(about)) as writer:
        for first in range(0, len(parts), _PARTS_PER_GROUP):
            last = first + _PARTS_PER_GROUP
            tables = map(read_part, parts[first:last], names[first:last])
            writer.write_table(pa.concat_tables(tables).replace_schema_metadata(about))


def counts(file: Path) -> tuple[dict[str, int], dict[str, str]]:
    """Return how many images have each decision, sorted by name, and the errors by path."""
    import pyarrow.parquet as pq

    decided: dict[str, int] = {}
    errors: dict[str, str] = {}
    with pq.ParquetFile(file) as opened:
        for batch in opened.iter_batches(columns=["path", "decision", "error"]):
            for path, decision, error in zip(*map(_values, batch.columns), strict=True):
                if error is None:
                    decided[decision] = decided.get(decision, 0) + 1
                else:
                    errors[path] = error
    return dict(sorted(decided.items())), errors


def _values(column: "pa.Array") -> list[str]:
    values: list[str] = column.to_pylist()
    return values


def _schema() -> "pa.Schema":
    import pyarrow as pa

    types = (pa.string(), pa.string(), pa.float64(), pa.int32(), pa.string())
    return pa.schema(list(zip(Row._fields, types, strict=True)))

"""Labelled files of a source, before they are decoded."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Label(NamedTuple):
    """A label as the source has it.

    value: its text; name: what the file's metadata call it (a ClassLabel's name), "" without.
    """

    value: str
    name: str = ""

    @property
    def text(self) -> str:
        """The name, or the value where there is none."""
        return self.name or self.value

    def __str__(self) -> str:
        return f"{self.value} ({self.name})" if self.name else self.value


@dataclass(frozen=True)
class LabelTable:
    """Labels of one table, or of a tree of folders.

    Attributes:
        where: name of the table in messages.
        labels: one for each row.
        numbers: number of each row in messages; None where rows have none.
        unit: what the numbers count, "row" or "line".
        names: class names that the file's metadata declare, in their order.
    """

    where: str
    labels: list[Label]
    numbers: Sequence[int] | None = None
    unit: str = "row"
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Record:
    """One labelled file.

    Attributes:
        source: name of the source.
        path: POSIX path, relative to the source.
        label: class name.
        group: as given; "" where there is none.
        attributes: all other columns.
        read: returns the file's bytes or raises ImageRejectedError.
    """

    source: str
    path: str
    label: str
    group: str
    attributes: dict[str, str]
    read: Callable[[], bytes]


Classes = Mapping[Label, str]  # class name, or "exclude", of every label


@dataclass(frozen=True)
class Source:
    """An opened source whose tables are read, and whose labels are not mapped yet.

    Attributes:
        name: name of the source.
        label_map: raw label -> class name or "exclude"; None: automatic.
        tables: the labels, table by table.
        named_by_folder: whether the labels are names of folders.
        records: streams the records, given the classes; excluded rows are not among them.
    """

    name: str
    label_map: Mapping[str, str] | None
    tables: list[LabelTable]
    records: Callable[[Classes], Iterator[Record]]
    named_by_folder: bool = False

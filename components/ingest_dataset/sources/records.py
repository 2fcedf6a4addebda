"""Labelled files of a source, before they are decoded."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


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
class Part:
    """One of `count` parts of a listing, number 1 to `count`: an entry's name decides its part.

    Another entry of the listing moves none of the others.
    """

    number: int = 1
    count: int = 1

    def has(self, source: str, name: str) -> bool:
        """Return whether a file of a source, or a row group of a Parquet file, is in this part."""
        if self.count == 1:
            return True
        entry = f"{source}/{name}".encode("utf-8", "surrogateescape")
        position = int.from_bytes(hashlib.sha256(entry).digest()[:8])
        return position * self.count >> 64 == self.number - 1


WHOLE = Part()


class ReadRecords(Protocol):
    """Streams the records of a source in the order of its listing, given the classes."""

    def __call__(self, classes: Classes, part: Part = WHOLE) -> Iterator[Record]:
        """Yield the records of one part; excluded rows are not among them."""


@dataclass(frozen=True)
class Source:
    """An opened source whose tables are read, and whose labels are not mapped yet.

    Attributes:
        name: name of the source.
        label_map: raw label -> class name or "exclude"; None: automatic.
        tables: the labels, table by table.
        named_by_folder: whether the labels are names of folders.
        records: streams the records of a part.
    """

    name: str
    label_map: Mapping[str, str] | None
    tables: list[LabelTable]
    records: ReadRecords
    named_by_folder: bool = False

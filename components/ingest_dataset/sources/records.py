"""Labelled files of a source, before they are decoded."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass


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


@dataclass(frozen=True)
class Source:
    """An opened source whose table is checked.

    `records()` streams its `count` records; excluded rows are not among them.
    """

    name: str
    count: int
    records: Callable[[], Iterator[Record]]

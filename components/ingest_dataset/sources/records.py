"""What is one labelled file of a source, before it is decoded?"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Record:
    """One labelled file. `path` is POSIX, relative to the source; `group` is as given, "" where
    there is none.

    `label` is a class name; `attributes` are all other columns. `read()` gives the file's bytes or
    raises ImageRejectedError.
    """

    source: str
    path: str
    label: str
    group: str
    attributes: dict[str, str]
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Source:
    """An opened source, its table checked: `count` records, without excluded rows, that `records()`
    streams.
    """

    name: str
    count: int
    records: Callable[[], Iterator[Record]]

"""Record of a lineage: the split of every sample that any of its runs has assigned.

A lineage is a series of runs on data that grow. Each run that splits leaves an entry of the chain
`<lineage>/000001.json`, `000002.json`, ..., created only where it is absent, so that of two runs at
once one wins. An entry names a table `<lineage>/<SHA-256>.csv` with all samples that have a split
so far; rows are added and never changed.

`request` identifies what was asked for: the listing of the data, and the options of ingest and
split. A run that asks for the same again is given the same previous table, and its steps come from
the cache.
"""

import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple, Self

from components.shared.contracts.config import canonical_json
from components.shared.contracts.documents import as_type, parse_json
from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ArtifactError, PermanentError
from components.shared.contracts.listing import first_of, shown
from components.shared.contracts.tables import parse_table, table_bytes
from components.shared.data.records import Records, open_records
from components.shared.data.splits import SPLITS

NOT_RECORDED = (
    f"{Variable.LINEAGES} is not set: the split is not recorded, and data added later may move"
    " groups between splits"
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ENTRY = re.compile(r"[0-9]{6}\.json")
_COLUMNS = ("sample_id", "group", "split")


class LineageConflictError(PermanentError):
    """Another run of the lineage has recorded its splits meanwhile."""


class Recorded(NamedTuple):
    """The split of a sample, and the group that it was in when it got it."""

    group: str
    split: str


@dataclass(frozen=True)
class _Document:
    """The document of an entry.

    Attributes:
        request: digest of what was asked for.
        previous: SHA-256 of the table that the run started from; empty for the first one.
        table: SHA-256 of the table that it left.
        salt: salt of the assignment of new groups.
        near_duplicate_distance: in bits, by which images were grouped.
        n_groups: split -> groups in it.
    """

    request: str
    previous: str
    table: str
    salt: str
    near_duplicate_distance: int
    n_groups: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Entry(_Document):
    """One run of a lineage; `number` is its position in the chain, from 1."""

    number: int


class Start(NamedTuple):
    """Where a run starts: the entry of an earlier run with its request, and the table before it."""

    same: Entry | None
    previous: str


class Lineage:
    """The chain of one lineage."""

    def __init__(self, name: str, records: Records) -> None:
        self.name, self._records = name, records

    @classmethod
    def open(cls, name: str) -> Self | None:
        """Return the lineage of that name, or None where STREETVISION_LINEAGES is not set.

        Raises:
            ConfigError: the address is malformed.
        """
        records = open_records(name)
        return None if records is None else cls(name, records)

    def entries(self) -> list[Entry]:
        """Return all entries, the first one first; raises ArtifactError."""
        names = [name for name in self._records.names() if _ENTRY.fullmatch(name)]
        return [self._entry(name) for name in names]

    def start(self, request: str) -> Start:
        """Return where a run with this request starts: where the same one did, or at the end."""
        entries = self.entries()
        same = next((entry for entry in entries if entry.request == request), None)
        return Start(same, same.previous if same else _newest(entries))

    def table(self, digest: str) -> dict[str, Recorded]:
        """Return the table with this SHA-256: sample id -> recorded split.

        Raises:
            ArtifactError: the table is not there, or has other bytes.
        """
        name = f"{digest}.csv"
        where = f"lineage {self.name!r}: table {name}"
        if name not in self._records.names():
            raise ArtifactError(f"{where} is missing; restore it, or name another lineage")

        data = self._records.read(name)
        if hashlib.sha256(data).hexdigest() != digest:
            raise ArtifactError(f"{where} was changed; restore it, or name another lineage")

        rows = parse_table(io.BytesIO(data), where, _COLUMNS)
        found = {row["sample_id"]: Recorded(row["group"], row["split"]) for row in rows}
        unknown = sorted({recorded.split for recorded in found.values()} - set(SPLITS))
        if unknown:
            raise ArtifactError(f"{where}: {first_of(map(shown, unknown))} is no split")
        return found

    def append(
        self,
        rows: Mapping[str, Recorded],
        *,
        request: str,
        previous: str,
        salt: str,
        near_duplicate_distance: int,
        n_groups: Mapping[str, int],
    ) -> None:
        """Record what a run has assigned; a request that is recorded already is left as it is.

        Args:
            rows: sample id -> recorded split, those of `previous` among them.
            request: digest of what was asked for.
            previous: the table that the run started from.
            salt: salt of the assignment of new groups.
            near_duplicate_distance: in bits, by which images were grouped.
            n_groups: split -> groups in it.

        Raises:
            LineageConflictError: another run was recorded since this one was configured.
        """
        entries = self.entries()
        if any(entry.request == request for entry in entries):
            return
        if _newest(entries) != previous:
            raise self._conflict()

        data = _table_bytes(rows)
        digest = hashlib.sha256(data).hexdigest()
        self._records.put(f"{digest}.csv", data)

        number = len(entries) + 1
        document = {
            "n_groups": dict(n_groups),
            "near_duplicate_distance": near_duplicate_distance,
            "previous": previous,
            "request": request,
            "salt": salt,
            "table": digest,
        }
        if not self._records.create(f"{number:06d}.json", canonical_json(document).encode()):
            raise self._conflict()

    def _conflict(self) -> LineageConflictError:
        return LineageConflictError(
            f"lineage {self.name!r}: another run has recorded its splits since this run began;"
            " start this run again, so that it continues from them"
        )

    def _entry(self, name: str) -> Entry:
        where = (
            f"lineage {self.name!r}: {name} is not an entry; restore it, or name another lineage"
        )
        found = as_type(parse_json(self._records.read(name), where), _Document, where)
        return Entry(number=int(name[:6]), **asdict(found))


def name_problem(name: str) -> str:
    """Return why `name` cannot name a lineage; empty where it can."""
    if not name or _NAME.fullmatch(name):
        return ""
    return f"lineage={name!r} must be letters, digits, '.', '_' or '-', at most 100"


def _newest(entries: Sequence[Entry]) -> str:
    """Return the table of the newest entry; empty for none."""
    return entries[-1].table if entries else ""


def _table_bytes(rows: Mapping[str, Recorded]) -> bytes:
    assert all(recorded.split in SPLITS for recorded in rows.values())
    table = ([sample_id, *recorded] for sample_id, recorded in sorted(rows.items()))
    return table_bytes(_COLUMNS, table, "table of the lineage")

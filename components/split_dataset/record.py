"""The lineage's record as one run of the split sees it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from components.shared.contracts.errors import ConfigError
from components.shared.data.dataset import Dataset
from components.shared.data.lineage import NOT_RECORDED, Lineage, Recorded
from components.split_dataset.config import SplitConfig


@dataclass(frozen=True)
class Record:
    """What earlier runs have assigned, and where this run adds to it.

    Attributes:
        lineage: the chain; None where nothing is recorded.
        request: digest of what was asked for.
        previous: SHA-256 of the table that the run starts from; empty for none.
        before: that table, sample id -> recorded split.
        rows: the table to keep: `before`, or that which an earlier run with the same request left,
            for the step may run again after its cache was lost, or with new code.
        salt: of that earlier run; empty where there was none.
        near_duplicate_distance: of the data set, in bits.
    """

    lineage: Lineage | None
    request: str
    previous: str
    before: Mapping[str, Recorded]
    rows: Mapping[str, Recorded]
    salt: str
    near_duplicate_distance: int

    @classmethod
    def of(cls, config: SplitConfig, data: Dataset) -> Self:
        """Read the record; raises ConfigError where it does not fit the grouping of the data."""
        distance = int(data.manifest.config.get("near_duplicate_distance", 0))
        lineage = Lineage.open(config.lineage) if config.lineage else None
        if lineage is None:
            return cls(None, "", "", {}, {}, "", distance)

        for entry in lineage.entries():
            if entry.near_duplicate_distance < distance:
                raise ConfigError(
                    f"near_duplicate_distance={distance} is more than the"
                    f" {entry.near_duplicate_distance} of lineage {config.lineage!r}, whose groups"
                    " it may unite across splits; use that, or name another lineage"
                )

        # Set by `configure`; the step that runs alone finds them itself.
        request = config.lineage_request or _request(config, data)
        same, start = lineage.start(request)
        previous = config.lineage_previous if config.lineage_request else start

        before = lineage.table(previous) if previous else {}
        rows = lineage.table(same.table) if same else before

        return cls(lineage, request, previous, before, rows, same.salt if same else "", distance)

    def append(self, rows: Mapping[str, Recorded], salt: str, n_groups: Mapping[str, int]) -> None:
        """Record the run: earlier rows as they are, and `rows` of samples that have none.

        Args:
            rows: sample id -> split, and group, of all samples of the run.
            salt: salt of the assignment.
            n_groups: split -> groups.

        Raises:
            LineageConflictError: another run was recorded since this one was configured.
        """
        if self.lineage is not None:
            self.lineage.append(
                {**rows, **self.rows},
                request=self.request,
                previous=self.previous,
                salt=salt,
                near_duplicate_distance=self.near_duplicate_distance,
                n_groups=n_groups,
            )

    def line(self, n_kept: int, n_samples: int) -> str:
        """Return one line for the log: which record, and how many samples it has a split of."""
        if self.lineage is None:
            return NOT_RECORDED
        if not self.previous:
            return f"lineage {self.lineage.name}: its first split, which later runs keep"
        return f"lineage {self.lineage.name}: {n_kept} of {n_samples} images keep their split"


def _request(config: SplitConfig, data: Dataset) -> str:
    text = data.manifest.content_digest + config.digest()
    return hashlib.sha256(text.encode()).hexdigest()

"""Which images of VAL_TEST the champion has not seen, by the samples of the run that made it.

A lineage records the split of every sample, so that a champion of the same lineage has seen no
image of today's VAL_TEST. That is not taken on trust where the champion's table of samples is in
the registry: a group of VAL_TEST is left out if the champion's run had one of its images, or a
group of its name, in TRAIN, VAL_SELECT or VAL_CALIB. So a champion of another lineage can be
compared, on the groups that neither has seen. What the table cannot show is a copy of an image in
other bytes under another group's name.
"""

import io
from typing import NamedTuple

import numpy as np

from components.promote_bundle.challenger import SPLIT, Challenger
from components.shared.contracts.tables import parse_table
from components.shared.data.splits import EXCLUDED
from components.shared.stats.metrics import Integers
from components.shared.storage.errors import ObjectNotFoundError
from components.shared.storage.registry import BundleRegistry, Provenance

_COLUMNS = ("sample_id", "split", "group")
_REMEDY = "promote by hand with --force, or train in the champion's lineage"


class Unseen(NamedTuple):
    """Images that may be compared.

    Attributes:
        rows: (n,) int64 of the images of VAL_TEST that neither model has seen.
        n_left_out: groups of VAL_TEST that the champion has seen.
        reason: why nothing can be compared; empty where something can.
    """

    rows: Integers
    n_left_out: int
    reason: str = ""


def unseen(challenger: Challenger, champion: str, registry: BundleRegistry) -> Unseen:
    """Return the images of VAL_TEST that the champion with this digest has not seen."""
    everything = np.arange(len(challenger.images.positions))
    nothing = everything[:0]
    provenance = registry.provenance(champion)
    if provenance is None or provenance.lineage is None:
        return Unseen(nothing, 0, f"no lineage of the champion is recorded; {_REMEDY}")

    table = _table(provenance, registry)
    own, other = challenger.lineage.name, provenance.lineage.name
    if table is None:
        if own == other:
            return Unseen(everything, 0)
        return Unseen(
            nothing,
            0,
            f"the champion is of lineage {other!r}, the challenger of {own!r}, and the samples that"
            f" the champion has seen are not recorded; {_REMEDY}",
        )

    seen = _seen_groups(challenger, table)
    groups = challenger.images.groups
    rows = np.array([row for row in everything if groups[row] not in seen], dtype=np.int64)
    return Unseen(rows, len(set(groups) & seen))


def _table(provenance: Provenance, registry: BundleRegistry) -> list[dict[str, str]] | None:
    if not provenance.split_table:
        return None
    try:
        data = registry.table(provenance.split_table)
    except ObjectNotFoundError:
        return None
    return list(parse_table(io.BytesIO(data), "table of the champion", _COLUMNS))


def _seen_groups(challenger: Challenger, table: list[dict[str, str]]) -> set[str]:
    """Return the groups of the challenger's data that the rows of a table have in other splits."""
    used = [row for row in table if row["split"] not in (SPLIT, EXCLUDED)]
    ids = {row["sample_id"] for row in used}
    of_images = {
        sample.group for sample in challenger.images.data.samples if sample.sample_id in ids
    }
    return of_images | {row["group"] for row in used}

"""What a champion has seen, by its table of samples."""

import io

import numpy as np
import pytest

from components.promote_bundle.unseen import unseen
from components.shared.contracts.tables import parse_table
from components.shared.storage.registry import BundleRegistry, Provenance, SplitLineage
from tests.promotion import FRACTIONS, Run

DIGEST_OF_NONE = "0" * 64


def _known(registry: BundleRegistry, run: Run, lineage: str, table: bytes = b"") -> None:
    provenance = Provenance(
        lineage=SplitLineage(name=lineage, salt="s", fractions=FRACTIONS),
        split_table=registry.put_table(table) if table else "",
    )
    registry.put_bundle(run.root / "bundle", provenance)


def test_a_champion_of_the_same_lineage_has_seen_nothing(
    registry: BundleRegistry, best: Run, weak: Run
) -> None:
    challenger = best.challenger()
    _known(registry, weak, "roads", challenger.table)
    found = unseen(challenger, weak.digest, registry)
    assert found.rows.tolist() == list(range(120))
    assert (found.n_left_out, found.reason) == (0, "")


@pytest.mark.parametrize(("lineage", "n_rows"), [("roads", 120), ("elsewhere", 0)])
def test_without_a_table_the_name_of_the_lineage_decides(
    registry: BundleRegistry, best: Run, weak: Run, lineage: str, n_rows: int
) -> None:
    _known(registry, weak, lineage)
    found = unseen(best.challenger(), weak.digest, registry)
    assert len(found.rows) == n_rows
    assert bool(found.reason) is (n_rows == 0)


def test_a_bundle_without_provenance_is_not_compared(registry: BundleRegistry, best: Run) -> None:
    found = unseen(best.challenger(), DIGEST_OF_NONE, registry)
    assert len(found.rows) == 0
    assert "no lineage of the champion is recorded" in found.reason


@pytest.mark.parametrize(
    ("row", "left_out"),
    [
        ("{sample},TRAIN,elsewhere", ["g2"]),  # the same image in another group
        ("ffffffffffffffff,VAL_CALIB,g2", ["g2"]),  # another image of the group's name
        ("{sample},VAL_TEST,g2", []),
        ("{sample},EXCLUDED,g2", []),  # in no split, so no run has used it
    ],
)
def test_a_group_is_seen_by_an_image_or_by_its_name(
    registry: BundleRegistry, best: Run, weak: Run, row: str, left_out: list[str]
) -> None:
    challenger = best.challenger()
    rows = list(parse_table(io.BytesIO(challenger.table), "table", ("sample_id", "group")))
    sample = next(row["sample_id"] for row in rows if row["group"] == "g2")
    table = f"sample_id,split,group\n{row.format(sample=sample)}\n".encode()
    _known(registry, weak, "elsewhere", table)
    found = unseen(challenger, weak.digest, registry)
    kept = np.array(challenger.images.groups)[found.rows]
    assert sorted(set(challenger.images.groups) - set(kept.tolist())) == left_out
    assert found.n_left_out == len(left_out)

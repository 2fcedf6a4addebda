"""Which split does a sample belong to, for ever?

A group's split follows from a salted hash of its name alone, so that data added later never move it.
"""

import csv
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from components.shared.artifacts import Manifest, verify_dir
from components.shared.errors import LeakageViolationError

SPLITS = ("TRAIN", "VAL_SELECT", "VAL_CALIB", "VAL_TEST")
KIND = "Splits"


@dataclass(frozen=True)
class Splits:
    """A verified Splits artifact: sample id -> split."""

    manifest: Manifest
    of: dict[str, str]

    @cached_property
    def _ids(self) -> dict[str, list[str]]:
        return {split: sorted(i for i, s in self.of.items() if s == split) for split in SPLITS}

    def ids(self, split: str) -> list[str]:
        """Sorted ids of the samples in `split`."""
        return self._ids[split]


def read_splits(path: Path) -> Splits:
    """Verify and read a Splits artifact."""
    manifest = verify_dir(path, KIND)
    with (path / "splits.csv").open(newline="", encoding="utf-8") as stream:
        return Splits(manifest, {row["sample_id"]: row["split"] for row in csv.DictReader(stream)})


def unit_hash(salt: str, group: str) -> float:
    """A number in [0, 1) from salt and group."""
    digest = hashlib.blake2b(f"{salt}\0{group}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def split_of(salt: str, group: str, shares: Mapping[str, float]) -> str:
    """The split whose interval of cumulated shares holds the group's hash."""
    position, bound = unit_hash(salt, group) * sum(shares.values()), 0.0
    for split, share in shares.items():
        bound += share
        if position < bound:
            return split
    return list(shares)[-1]


def audit(split_by_id: Mapping[str, str], group_by_id: Mapping[str, str], pairs: list[tuple[str, str]]) -> None:
    """Prove that no group and no duplicate pair crosses a split; LeakageViolationError names what does."""
    by_group: dict[str, set[str]] = {}
    for sample_id, split in split_by_id.items():
        by_group.setdefault(group_by_id[sample_id], set()).add(split)
    crossing = [f"group {group} in {', '.join(sorted(s))}" for group, s in sorted(by_group.items()) if len(s) > 1]
    for first, second in pairs:
        if split_by_id[first] != split_by_id[second]:
            crossing.append(f"near-duplicates {first} in {split_by_id[first]} and {second} in {split_by_id[second]}")
    if crossing:
        raise LeakageViolationError(f"{len(crossing)} crossing(s): " + "; ".join(crossing[:20]))

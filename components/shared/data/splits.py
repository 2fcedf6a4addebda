"""Which split does a sample belong to, for ever?

A group's split follows from a salted hash of its name alone, so that data added later never move
it.
"""

import csv
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import Manifest, verify_dir
from components.shared.contracts.errors import ArtifactError, LeakageViolationError
from components.shared.data.dataset import Dataset

SPLITS = ("TRAIN", "VAL_SELECT", "VAL_CALIB", "VAL_TEST")
_NAMED_CROSSINGS = 20


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
    manifest = verify_dir(path, Kind.SPLITS)
    with (path / "splits.csv").open(newline="", encoding="utf-8") as stream:
        return Splits(manifest, {row["sample_id"]: row["split"] for row in csv.DictReader(stream)})


def refuse_foreign(data: Dataset, assignment: Splits, checkpoint: Manifest) -> None:
    """Raises ArtifactError where splits or checkpoint were made from another dataset than
    `data`.
    """
    if checkpoint.inputs.get("dataset") != data.manifest.content_digest or set(
        assignment.of
    ) != set(data.index):
        raise ArtifactError(
            "checkpoint or splits were made from another dataset; take all inputs from one run"
        )


def unit_hashes(salt: str, groups: Iterable[str]) -> npt.NDArray[np.float64]:
    """(G,) numbers in [0, 1), one per group, from BLAKE2b of salt and group."""
    digests = (
        hashlib.blake2b(f"{salt}\0{group}".encode(), digest_size=8).digest() for group in groups
    )
    # 53 bits are what a double holds: with 64, the largest would round to 1.
    return (
        np.array([int.from_bytes(digest, "big") >> 11 for digest in digests], dtype=np.float64)
        / 2**53
    )


def assign(salt: str, groups: Iterable[str], shares: Mapping[str, float]) -> npt.NDArray[np.int64]:
    """(G,) index into `shares` of each group's split: whose interval of cumulated shares holds the
    group's hash.

    Shares are renormalised to 1.
    """
    cumulated = np.cumsum(list(shares.values()))
    return np.searchsorted(
        cumulated[:-1] / cumulated[-1], unit_hashes(salt, groups), side="right"
    ).astype(np.int64)


def audit(
    split_by_id: Mapping[str, str], group_by_id: Mapping[str, str], pairs: Iterable[tuple[str, str]]
) -> None:
    """Prove that every sample has a split and no group and no duplicate pair crosses.

    Raises LeakageViolationError naming what does.
    """
    problems = [
        f"sample {sample_id} has no split"
        for sample_id in sorted(group_by_id.keys() - split_by_id.keys())
    ]
    by_group: dict[str, set[str]] = {}
    for sample_id, group in group_by_id.items():
        by_group.setdefault(group, set()).add(split_by_id.get(sample_id, "none"))
    problems += [
        f"group {group} in {', '.join(sorted(s))}"
        for group, s in sorted(by_group.items())
        if len(s) > 1
    ]
    for first, second in pairs:
        splits = split_by_id.get(first, "none"), split_by_id.get(second, "none")
        if splits[0] != splits[1]:
            problems.append(f"near-duplicates {first} in {splits[0]} and {second} in {splits[1]}")
    if problems:
        more = (
            f"; and {len(problems) - _NAMED_CROSSINGS} more"
            if len(problems) > _NAMED_CROSSINGS
            else ""
        )
        raise LeakageViolationError(
            f"{len(problems)} crossing(s): " + "; ".join(problems[:_NAMED_CROSSINGS]) + more
        )

"""The Splits artifact: the split of every sample, the salted hash of groups, and the audit.

A sample keeps the split that it once got, because a lineage records it (`data.lineage`). A hash
alone could not promise that: a group's name changes where new images unite it with another one,
and the best salt changes with the data.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import Manifest, verify_dir
from components.shared.contracts.errors import ArtifactError, DataError, LeakageViolationError
from components.shared.contracts.listing import first_of, shown
from components.shared.contracts.tables import read_table
from components.shared.data.dataset import Dataset

SPLITS = ("TRAIN", "VAL_SELECT", "VAL_CALIB", "VAL_TEST")
EXCLUDED = "EXCLUDED"  # in splits.csv: samples that connect groups of different splits


@dataclass(frozen=True)
class Splits:
    """A verified Splits artifact; `of` maps sample ids to splits, or to EXCLUDED."""

    manifest: Manifest
    of: dict[str, str]

    @cached_property
    def _ids(self) -> dict[str, list[str]]:
        return {split: sorted(i for i, s in self.of.items() if s == split) for split in SPLITS}

    def ids(self, split: str) -> list[str]:
        """Return the sorted ids of the samples in `split`."""
        return self._ids[split]


def read_splits(path: Path) -> Splits:
    """Verify and read a Splits artifact.

    Raises:
        ArtifactError: the artifact is damaged, names another split, or has a sample twice.
    """
    manifest = verify_dir(path, Kind.SPLITS)
    file = path / "splits.csv"
    rows = [(row["sample_id"], row["split"]) for row in read_table(file, ("sample_id", "split"))]

    found = dict(rows)
    if len(found) < len(rows):
        raise ArtifactError(f"{file}: {len(rows) - len(found)} sample(s) occur twice")
    unknown = sorted(set(found.values()) - {*SPLITS, EXCLUDED})
    if unknown:
        raise ArtifactError(f"{file}: {first_of(map(shown, unknown))} is no split")

    return Splits(manifest, found)


def refuse_empty(data: Dataset, assignment: Splits) -> None:
    """Raise DataError where splits and dataset have other samples, or a split has none."""
    unknown = sorted(set(assignment.of) ^ set(data.index))
    if unknown:
        raise DataError(
            f"splits and dataset differ in {len(unknown)} sample(s), first {unknown[0]}: rerun the"
            " split"
        )

    empty = [split for split in SPLITS if not assignment.ids(split)]
    if empty:
        raise DataError(f"split(s) {', '.join(empty)} are empty")


def refuse_foreign(data: Dataset, assignment: Splits, checkpoint: Manifest) -> None:
    """Raise ArtifactError where splits or checkpoint were made from another dataset."""
    of_checkpoint = checkpoint.inputs.get("dataset")
    if of_checkpoint != data.manifest.content_digest or set(assignment.of) != set(data.index):
        raise ArtifactError(
            "checkpoint or splits were made from another dataset; use the artifacts of one run"
        )


def unit_hashes(salt: str, groups: Iterable[str]) -> npt.NDArray[np.float64]:
    """Return (G,) float64 in [0, 1), one number per group, from BLAKE2b of salt and group."""
    hashes = []
    for group in groups:
        digest = hashlib.blake2b(f"{salt}\0{group}".encode(), digest_size=8).digest()
        # A double holds 53 bits: with 64, the largest hash would round to 1.
        hashes.append(int.from_bytes(digest, "big") >> 11)
    return np.array(hashes, dtype=np.float64) / 2**53


def assign(
    salt: str, groups: Iterable[str], fractions: Mapping[str, float]
) -> npt.NDArray[np.int64]:
    """Assign each group to the split whose interval of cumulated fractions holds its hash.

    Args:
        salt: salt of the hash.
        groups: names of the groups.
        fractions: split -> fraction; they are renormalised to 1.

    Returns:
        (G,) int64, index into `fractions` of each group's split.
    """
    cumulated = np.cumsum(list(fractions.values()))
    inner_edges = cumulated[:-1] / cumulated[-1]
    return np.searchsorted(inner_edges, unit_hashes(salt, groups), side="right").astype(np.int64)


def audit(
    split_by_id: Mapping[str, str], group_by_id: Mapping[str, str], pairs: Iterable[tuple[str, str]]
) -> None:
    """Check that every sample has a split, and that no group and no duplicate pair crosses splits.

    Args:
        split_by_id: sample id -> split.
        group_by_id: sample id -> group.
        pairs: ids of duplicates.

    Raises:
        LeakageViolationError: the message names the samples, groups and pairs.
    """
    problems = [
        f"sample {sample_id} has no split"
        for sample_id in sorted(group_by_id.keys() - split_by_id.keys())
    ]
    splits_of_group: dict[str, set[str]] = {}
    for sample_id, group in group_by_id.items():
        splits_of_group.setdefault(group, set()).add(split_by_id.get(sample_id, "none"))
    for group, splits in sorted(splits_of_group.items()):
        if len(splits) > 1:
            problems.append(f"group {group} in {', '.join(sorted(splits))}")

    for first, second in pairs:
        of_first, of_second = split_by_id.get(first, "none"), split_by_id.get(second, "none")
        if of_first != of_second:
            problems.append(f"near-duplicates {first} in {of_first} and {second} in {of_second}")

    if problems:
        raise LeakageViolationError(
            f"{len(problems)} crossing(s): {first_of(problems, separator='; ')}"
        )

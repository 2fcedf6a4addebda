"""Which images show the same picture, which label counts, and which images must stay in one
split?
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from components.ingest_dataset import duplicates
from components.ingest_dataset.check import Checked


@dataclass(frozen=True)
class Pair:
    """Two files showing the same picture: kind "exact" (equal bytes) or "near"; distance in bits of
    the hash.
    """

    kind: str
    first: Checked
    second: Checked
    distance: int

    @property
    def conflict(self) -> bool:
        """Whether the two have different labels."""
        return self.first.label != self.second.label


def without_copies(usable: Sequence[Checked]) -> tuple[list[Checked], list[Pair]]:
    """One file per content, the first in `usable`, and the pairs of it with its copies.

    Where copies carry different labels nobody can know the right one: all of them are left out.
    """
    by_digest: dict[str, list[Checked]] = {}
    for item in usable:
        by_digest.setdefault(item.sha256, []).append(item)
    pairs = [
        Pair("exact", copies[0], copy, 0) for copies in by_digest.values() for copy in copies[1:]
    ]
    kept = [copies[0] for copies in by_digest.values() if len({copy.label for copy in copies}) == 1]
    return kept, pairs


def near_duplicates(kept: Sequence[Checked], max_distance: int) -> list[Pair]:
    """The closest pairs that hold each set of near-duplicates together (see
    `duplicates.nearest_links`).
    """
    size = duplicates.THUMBNAIL_SIZE
    thumbnails = np.array([item.thumbnail for item in kept], dtype=np.uint8).reshape(-1, size, size)
    links, distances = duplicates.nearest_links(
        duplicates.perceptual_hashes(thumbnails), max_distance
    )
    rows = zip(links.tolist(), distances.tolist(), strict=True)
    return [Pair("near", kept[i], kept[j], distance) for (i, j), distance in rows]


def united_groups(
    kept: Sequence[Checked], exact: Sequence[Pair], near: Sequence[Pair]
) -> list[str]:
    """The group of each of `kept`: given groups, joined where duplicates connect them.

    Equal names are one group, also across sources. The united group is named after its smallest
    given group, else after the smallest id of its images, so that further ungrouped images do not
    rename it. Where new data connect two groups, one of the two must take the other's name.
    """
    node = {item.sha256: number for number, item in enumerate(kept)}
    edges = [(node[pair.first.sha256], node[pair.second.sha256]) for pair in near]
    of_group: dict[str, int] = {}
    # Copies that were dropped connect their groups too: the rest of those groups shows the same
    # place.
    for item in [*kept, *(pair.second for pair in exact)]:
        if item.group and item.sha256 in node:
            edges.append(
                (of_group.setdefault(item.group, len(kept) + len(of_group)), node[item.sha256])
            )
    component = duplicates.components(
        len(kept) + len(of_group), np.array(edges, dtype=np.int64).reshape(-1, 2)
    )
    names: dict[int, str] = {}
    for group in sorted(of_group):
        names.setdefault(int(component[of_group[group]]), group)
    for item in sorted(kept, key=lambda item: item.sha256):
        names.setdefault(int(component[node[item.sha256]]), item.sha256[:16])
    return [names[int(component[node[item.sha256]])] for item in kept]

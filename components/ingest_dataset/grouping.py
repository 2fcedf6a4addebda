"""Duplicates among the checked images, and the groups that hold them in one split."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from components.ingest_dataset.check import Checked
from components.ingest_dataset.chunks import Description
from components.shared.data import duplicates


@dataclass(frozen=True)
class Pair:
    """Two files that show the same picture.

    first, second: what is known of them. kind: "exact" (equal bytes) or "near"; distance: between
    their hashes, in bits.
    """

    kind: str
    first: Description
    second: Description
    distance: int

    @property
    def conflict(self) -> bool:
        """Whether the two have different labels."""
        return self.first.label != self.second.label


def without_copies(usable: Sequence[Checked]) -> tuple[list[Checked], list[Pair]]:
    """Return one file per content, the first in `usable`, and its pairs with its copies.

    Where copies have different labels, the right one is unknown: all of them are left out.
    """
    by_digest: dict[str, list[Checked]] = {}
    for item in usable:
        by_digest.setdefault(item.description.sha256, []).append(item)
    pairs = [
        Pair("exact", copies[0].description, copy.description, 0)
        for copies in by_digest.values()
        for copy in copies[1:]
    ]
    unique = [
        copies[0]
        for copies in by_digest.values()
        if len({copy.description.label for copy in copies}) == 1
    ]

    return unique, pairs


def near_duplicates(unique: Sequence[Checked], max_distance: int) -> list[Pair]:
    """Return the closest pairs that connect each set of near-duplicates.

    See `duplicates.nearest_links`; `max_distance` is in bits of the hash.
    """
    hashes = np.array([item.hash for item in unique], dtype=np.uint64)
    links, distances = duplicates.nearest_links(hashes, max_distance)
    return [
        Pair("near", unique[i].description, unique[j].description, distance)
        for (i, j), distance in zip(links.tolist(), distances.tolist(), strict=True)
    ]


def united_groups(
    unique: Sequence[Description], exact: Sequence[Pair], near: Sequence[Pair]
) -> list[str]:
    """Return the group of each unique image: given groups, joined where duplicates connect them.

    Equal names are one group, also across sources. A joined group is named after its smallest given
    group, else after the smallest id of its images, so that further ungrouped images do not rename
    it. Where new data connect two groups, one of them gets the other's name.

    Args:
        unique: images without exact copies.
        exact: pairs of exact copies.
        near: pairs of near-duplicates.
    """
    # A graph whose nodes are images, then given groups; its connected components are the groups.
    node = {item.sha256: number for number, item in enumerate(unique)}
    edges = [(node[pair.first.sha256], node[pair.second.sha256]) for pair in near]
    node_of_group: dict[str, int] = {}

    # Copies that were left out connect their groups too: the other images of those groups show the
    # same place.
    for item in [*unique, *(pair.second for pair in exact)]:
        if item.group and item.sha256 in node:
            group_node = node_of_group.setdefault(item.group, len(unique) + len(node_of_group))
            edges.append((group_node, node[item.sha256]))

    n_nodes = len(unique) + len(node_of_group)
    pairs = np.array(edges, dtype=np.int64).reshape(-1, 2)
    component = duplicates.connected_components(n_nodes, pairs)

    names: dict[int, str] = {}
    for group in sorted(node_of_group):
        names.setdefault(int(component[node_of_group[group]]), group)
    for item in sorted(unique, key=lambda item: item.sha256):
        names.setdefault(int(component[node[item.sha256]]), item.sha256[:16])

    return [names[int(component[node[item.sha256]])] for item in unique]

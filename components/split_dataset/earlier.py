"""Samples that have a split already, groups that join them, and samples that must be left out.

A sample keeps its recorded split, whatever becomes of its label or group. A new sample joins the
split of the earlier samples of its group. Where new images connect groups of different splits, no
split can take them without a leak: all new samples of the united group are excluded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from components.shared.data.dataset import Sample
from components.shared.data.lineage import Recorded
from components.shared.data.splits import SPLITS


@dataclass(frozen=True)
class Earlier:
    """What the record says about the samples of a data set.

    Attributes:
        group_of: sample id -> the group that is assigned as a whole, without excluded samples.
        split_of: group -> split, of groups that have one already.
        excluded: sample id -> the splits of the groups that the sample connects.
    """

    group_of: dict[str, str]
    split_of: dict[str, str]
    excluded: dict[str, tuple[str, ...]]


def earlier_splits(samples: Sequence[Sample], recorded: Mapping[str, Recorded]) -> Earlier:
    """Find the samples that have a split, by their ids and by the names of their groups.

    The name counts too: it is all that new images share with a place whose earlier images are no
    longer in the data.

    Args:
        samples: samples of the data set, grouped.
        recorded: sample id -> recorded group and split.
    """
    named: dict[str, set[str]] = {}
    for row in recorded.values():
        named.setdefault(row.group, set()).add(row.split)

    splits_of: dict[str, set[str]] = {}
    for sample in samples:
        found = splits_of.setdefault(sample.group, set(named.get(sample.group, ())))
        if sample.sample_id in recorded:
            found.add(recorded[sample.sample_id].split)

    group_of: dict[str, str] = {}
    split_of: dict[str, str] = {}
    excluded: dict[str, tuple[str, ...]] = {}

    for sample in samples:
        splits = splits_of[sample.group]
        if len(splits) <= 1:
            group_of[sample.sample_id] = sample.group
            for split in splits:
                split_of[sample.group] = split
        elif sample.sample_id in recorded:
            split = recorded[sample.sample_id].split
            part = f"{sample.group} ({split})"
            group_of[sample.sample_id], split_of[part] = part, split
        else:
            excluded[sample.sample_id] = tuple(sorted(splits, key=SPLITS.index))

    return Earlier(group_of, split_of, excluded)

"""Features of TRAIN and VAL_SELECT by a fixed backbone, computed once, shard by shard.

A shard is a part of the session (`checkpoint.parts`), computed and written by one rank: no process
holds more than one, an interruption loses those under way, and the bytes do not depend on the
number of processes, because no batch has images of two shards.
"""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from components.shared.contracts.environment import Variable
from components.shared.contracts.progress import progress
from components.shared.data.features import (
    SHARDS,
    FeatureLabels,
    FeatureRecipe,
    Features,
    map_shards,
    open_features,
    rows_per_shard,
    shard_name,
    to_half,
    write_header,
)
from components.shared.models.classifier import Classifier
from components.shared.stats.bootstrap import membership
from components.shared.training.checkpoint.parts import Parts
from components.shared.training.loop.distributed import World
from components.shared.training.loop.inference import (
    Positions,
    SplitData,
    augmented_features,
    drawn_augmentations,
)
from components.shared.vision.augmentation import Augmentation

_FILE = "features.npy"
_POLL_SECONDS = 0.2


class FeatureSets(NamedTuple):
    """The features that heads are trained on, and those by which the epoch is selected."""

    train: Features
    select: Features


def computed_features(
    classifier: Classifier,
    train: SplitData,
    select: SplitData,
    recipe: FeatureRecipe,
    world: World,
    parts: Parts,
) -> FeatureSets:
    """Compute the shards that no earlier attempt has left, and map all of them.

    Args:
        classifier: The classifier with the fixed backbone, in evaluation mode.
        train: TRAIN.
        select: VAL_SELECT, whose features are those of the unaugmented images.
        recipe: How TRAIN's features are computed.
        world: The ranks, each of which computes other shards.
        parts: Where finished shards are kept.

    Raises:
        PermanentError: A feature has no float16.
        OvertakenError, NotDurableError: As `Parts.writing`.
    """
    views, width = classifier.spec.views, classifier.head.linear.in_features
    of_image = (width,) if views is None else (views.count, width)
    splits = (
        _Split("TRAIN", train, recipe, (recipe.n_augmentations, *of_image)),
        _Split("VAL_SELECT", select, recipe.unaugmented(), (1, *of_image)),
    )

    _compute(classifier, splits, world, parts)

    return FeatureSets(*(split.mapped(parts) for split in splits))


def opened_features(train: Path | None, select: Path | None) -> FeatureSets | None:
    """Map the features of two artifacts, which the step has verified; None where there are none."""
    if train is None or select is None:
        return None
    return FeatureSets(
        open_features(train, "TRAIN")[0],
        open_features(select, "VAL_SELECT")[0],
    )


def export_features(
    directory: Path,
    split: str,
    features: Features,
    parts: Parts,
    labels: FeatureLabels | None = None,
) -> None:
    """Lay shards and labels of a split out as its artifact has them; shards stay in `parts` too."""
    (directory / SHARDS).mkdir(parents=True)
    write_header(directory, split, features, labels)
    for number in range(len(features.shards)):
        source = parts.path(_part_name(split, number)) / _FILE
        target = directory / SHARDS / shard_name(number)
        try:
            target.hardlink_to(source)
        except OSError:  # another disk, or a file system without links
            shutil.copyfile(source, target)


def labels_of(part: SplitData) -> FeatureLabels:
    """Return classes and groups of a split's images."""
    groups = [part.data.samples[position].group for position in part.positions]
    member = membership(groups, len(groups))
    return FeatureLabels(part.data.class_names, part.labels, member)


def in_blocks(
    function: Callable[[torch.Tensor], torch.Tensor], features: Features, world: World
) -> torch.Tensor:
    """Apply `function` to all images' unaugmented features, a part at a time.

    Args:
        function: Maps (n, 2h) or (n, V, 2h) float32 on the rank's device to (n, ...).
        features: The features of N images.
        world: The ranks, each of which does all of the work.

    Returns:
        (N, ...) on the rank's device.
    """
    results = []
    with torch.no_grad():
        for rows in features.blocks():
            world.record_progress()
            results.append(function(torch.from_numpy(features.take(rows)).to(world.device)))
    return torch.cat(results)


@dataclass(frozen=True)
class _Split:
    """A split, how its features are computed, and the axes of one image's."""

    name: str
    part: SplitData
    recipe: FeatureRecipe
    shape: tuple[int, ...]

    @property
    def n_shards(self) -> int:
        return -(-len(self.part) // rows_per_shard(self.shape))

    def rows(self, number: int) -> Positions:
        """Return the rows of a shard."""
        size = rows_per_shard(self.shape)
        return np.arange(number * size, min((number + 1) * size, len(self.part)), dtype=np.int64)

    @cached_property
    def augmentations(self) -> list[Augmentation | None]:
        """The augmentations of all images; some 50 bytes for each of each image."""
        return drawn_augmentations(
            len(self.part),
            n_augmentations=self.recipe.n_augmentations,
            augmentation=self.recipe.augmentation,
            seed=self.recipe.seed,
        )

    def mapped(self, parts: Parts) -> Features:
        """Return the features of all shards."""
        names = [_part_name(self.name, number) for number in range(self.n_shards)]
        files = [parts.path(name) / _FILE for name in names]
        return map_shards(files, self.part.sample_ids, self.shape, self.recipe)


def _compute(classifier: Classifier, splits: Sequence[_Split], world: World, parts: Parts) -> None:
    """Compute this rank's part of the shards, and wait for the others'."""
    shards = [(split, number) for split in splits for number in range(split.n_shards)]
    # Processes of another node do not see this disk: each node computes all that it reads.
    n_local = int(os.environ.get(Variable.LOCAL_WORLD_SIZE) or world.size)
    mine = shards[world.rank % n_local :: n_local]

    for split, number in progress(mine, "shards of features", quiet=not world.is_main):
        world.record_progress()
        name = _part_name(split.name, number)
        if parts.has(name):
            continue

        features = augmented_features(
            classifier,
            split.part,
            split.rows(number),
            world,
            parameters=split.augmentations,
            precision=split.recipe.precision,
        )
        half = to_half(features.numpy(), f"features of {name}")
        with parts.writing(name) as out:
            np.save(out / _FILE, half, allow_pickle=False)

    parts.settle()
    # No collective call: ranks may end hours apart, and what they wait for is on the disk.
    while not all(parts.has(_part_name(split.name, number)) for split, number in shards):
        world.record_progress(waiting=True)
        time.sleep(_POLL_SECONDS)
    world.record_progress()


def _part_name(split: str, number: int) -> str:
    return f"{split}-{number:05d}"

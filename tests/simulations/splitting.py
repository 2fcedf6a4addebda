"""Simulated data sets through the split's own functions: refusals, moved groups, balance.

Usage: python -m tests.simulations.splitting

The same file runs on the code before lineages (commit f7d9dc4), where a salt was chosen anew for
all groups of every run: PYTHONPATH=<worktree> python tests/simulations/splitting.py. Tables and
their reading: docs/results/splits.md. Groups have one label each, as videos do, and 4 to 40 images.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from components.shared.contracts.errors import DataError
from components.shared.data.splits import SPLITS
from components.split_dataset import balance

FRACTIONS = dict(zip(SPLITS, (0.7, 0.1, 0.1, 0.1), strict=True))
SHAPES = ((8, 16), (12, 100), (20, 100), (30, 300), (40, 40), (60, 200), (80, 80))
GROWTH = (0.02, 0.1, 0.5)
N_SETS = 60
N_SALTS = 64
_TRAIN, _CALIB, _TEST = (SPLITS.index(name) for name in ("TRAIN", "VAL_CALIB", "VAL_TEST"))
_LINEAGES = hasattr(balance, "best_assignment")


@dataclass(frozen=True)
class Data:
    """Simulated groups: name, label and size of each."""

    names: tuple[str, ...]
    labels: np.ndarray
    sizes: np.ndarray

    @classmethod
    def draw(cls, seed: int, n_groups: tuple[int, ...], sizes: tuple[int, int] = (4, 40)) -> "Data":
        """Draw a number of groups of each class."""
        rng = np.random.default_rng(seed)
        total = sum(n_groups)
        labels = rng.permutation(np.repeat(np.arange(len(n_groups)), n_groups))
        names = tuple(f"place{number}" for number in rng.permutation(10 * total)[:total])
        return cls(names, labels, rng.integers(sizes[0], sizes[1] + 1, total))

    def images(self) -> "Images":
        """Return the images of the groups; ids are numbers, in order."""
        groups = np.repeat(np.array(self.names), self.sizes)
        return Images(groups, np.repeat(self.labels, self.sizes))


@dataclass(frozen=True)
class Images:
    """Images, known by their positions: group and label of each, (N,)."""

    groups: np.ndarray
    labels: np.ndarray

    def grown(self, seed: int, fraction: float) -> "Images":
        """Return the same images, a hundredth with another label, and more images after them.

        Of the new groups, nine of ten are new places of one label. Every tenth is one image that
        looks like images of two groups: these are one group from then on, with the smaller name.
        """
        rng = np.random.default_rng([seed, 1])
        places = np.unique(self.groups)
        groups, labels = self.groups.copy(), self.labels.copy()
        flipped = rng.random(len(labels)) < 0.01
        labels[flipped] = 1 - labels[flipped]
        for number in range(max(round(fraction * len(places)), 1)):
            if number % 10:
                size = rng.integers(4, 41)
                groups = np.r_[groups, np.repeat(f"new{number}", size)]
                labels = np.r_[labels, np.repeat(rng.choice(self.labels), size)]
            else:
                first, second = sorted(rng.choice(np.unique(groups), 2, replace=False))
                groups = np.r_[np.where(groups == second, first, groups), [first]]
                labels = np.r_[labels, [rng.choice(self.labels)]]
        return Images(groups, labels)

    def split(self, earlier: "Images", splits: dict[str, int]) -> tuple[np.ndarray, int] | None:
        """Return the split of each image, -1 for excluded ones, and how many are excluded.

        Args:
            earlier: the images of the first run, a prefix of these.
            splits: group -> split of the first run.
        """
        if not _LINEAGES:
            named = _split(counted(self.groups, self.labels), 0)
            return None if named is None else (np.array([named[g] for g in self.groups]), 0)

        from components.shared.data.dataset import Sample
        from components.shared.data.lineage import Recorded
        from components.split_dataset.earlier import earlier_splits

        samples = [
            Sample(str(number), int(label), str(group), "", "", "", {})
            for number, (group, label) in enumerate(zip(self.groups, self.labels, strict=True))
        ]
        recorded = {
            str(number): Recorded(str(group), SPLITS[splits[str(group)]])
            for number, group in enumerate(earlier.groups)
        }
        known = earlier_splits(samples, recorded)
        kept = [sample for sample in samples if sample.sample_id in known.group_of]
        names = [known.group_of[sample.sample_id] for sample in kept]
        named = _split(counted(names, [s.label for s in kept], known.split_of), 0)
        if named is None:
            return None
        by_id = {s.sample_id: named[name] for s, name in zip(kept, names, strict=True)}
        return np.array([by_id.get(s.sample_id, -1) for s in samples]), len(known.excluded)


def counted(groups: Any, labels: Any, earlier: dict[str, str] | None = None) -> Any:
    """Return the groups as the split counts them, on either version of the code."""
    names, listed = [str(group) for group in groups], [int(label) for label in labels]
    n_classes = max(listed) + 1
    if _LINEAGES:
        return balance.Groups.of(names, listed, n_classes, earlier=earlier)
    return balance.Groups.of(names, listed, n_classes, set())  # type: ignore[call-arg]


def split(data: Data, seed: int = 0) -> dict[str, int] | None:
    """Return the split of each group, or None where the split refuses the data."""
    images = data.images()
    return _split(counted(images.groups, images.labels), seed)


def _split(groups: Any, seed: int) -> dict[str, int] | None:
    names = [str(number) for number in range(groups.per_class.shape[1])]
    try:
        if _LINEAGES:
            limits = balance.Limits(5, 2)
            splits = balance.best_assignment(groups, FRACTIONS, limits, seed, N_SALTS).splits
            balance.refuse_missing(groups, splits, names, limits, N_SALTS)
        else:
            salt = balance.best_salt(groups, FRACTIONS, seed, N_SALTS)  # type: ignore[attr-defined]
            splits = groups.splits(salt, FRACTIONS)
            balance.refuse_missing(groups.counts(splits), names, 5, salt)  # type: ignore
    except DataError:
        return None
    return dict(zip(groups.names, splits.tolist(), strict=True))


def lacks_groups(data: Data, splits: dict[str, int]) -> bool:
    """Return whether VAL_CALIB has fewer than two groups of a class: nothing can be calibrated."""
    in_calib = np.array([splits[name] == _CALIB for name in data.names])
    return any(((data.labels == k) & in_calib).sum() < 2 for k in np.unique(data.labels))


def refusals(n_groups: tuple[int, ...], sizes: tuple[int, int] = (4, 40)) -> tuple[int, int]:
    """Return how many of N_SETS are refused, and accepted with too few groups in VAL_CALIB."""
    drawn = [Data.draw(seed, n_groups, sizes) for seed in range(N_SETS)]
    found = [(data, split(data)) for data in drawn]
    accepted = [(data, splits) for data, splits in found if splits is not None]
    return N_SETS - len(accepted), sum(lacks_groups(*pair) for pair in accepted)


class Moved(NamedTuple):
    """What growth moved, over all sets that both runs accept."""

    n_sets: int
    n_sets_with_moves: int
    n_groups: int
    n_test_to_train: int
    n_excluded: int


def moved(fraction: float, n_sets: int = N_SETS) -> Moved:
    """Grow data sets of 60 and 200 groups; count the groups of which an image moved."""
    total = np.zeros(len(Moved._fields), dtype=np.int64)
    for seed in range(n_sets):
        data = Data.draw(seed, (60, 200))
        images, splits = data.images(), split(data)
        assert splits is not None
        found = images.grown(seed, fraction).split(images, splits)
        if found is None:
            continue
        after, n_excluded = found
        before = np.array([splits[group] for group in images.groups])
        changed = before != after[: len(before)]
        leaked = changed & (before == _TEST) & (after[: len(before)] == _TRAIN)
        groups, leaks = (len(np.unique(images.groups[rows])) for rows in (changed, leaked))
        total += [1, groups > 0, groups, leaks, n_excluded]
    return Moved(*total.tolist())


def stratified_group_k_fold(data: Data, seed: int) -> dict[str, int]:
    """Return scikit-learn's split: ten folds, seven of them TRAIN."""
    from sklearn.model_selection import StratifiedGroupKFold

    images = data.images()
    names, labels = images.groups, images.labels
    folds = StratifiedGroupKFold(10, shuffle=True, random_state=seed)
    part_of_fold = [1, 2, 3] + [0] * 7
    found: dict[str, int] = {}
    for fold, (_, held_out) in enumerate(folds.split(names, labels, names)):
        found |= dict.fromkeys(np.unique(names[held_out]).tolist(), part_of_fold[fold])
    return found


def balance_of(data: Data, splits: dict[str, int]) -> tuple[float, float]:
    """Return the mean relative error of images per split and class, and the size of TEST's groups.

    The second number is the mean size of VAL_TEST's groups, relative to that of all groups: 1 where
    VAL_TEST is a random sample of the groups.
    """
    part = np.array([splits[name] for name in data.names])
    errors = []
    for k in np.unique(data.labels):
        total = data.sizes[data.labels == k].sum()
        for row, wanted in enumerate(FRACTIONS.values()):
            has = data.sizes[(data.labels == k) & (part == row)].sum()
            errors.append(abs(has / total - wanted) / wanted)
    return float(np.mean(errors)), float(data.sizes[part == _TEST].mean() / data.sizes.mean())


def main() -> None:
    """Print all tables."""
    print("groups: refused, accepted with < 2 groups of a class in VAL_CALIB")
    for shape in SHAPES:
        print(shape, *refusals(shape), flush=True)
    print("43 x 8, 1 to 11 images:", *refusals((8,) * 43, (1, 11)), flush=True)

    print("growth:", ", ".join(Moved._fields))
    for fraction in GROWTH:
        print(f"+{fraction:.0%}", *moved(fraction), flush=True)

    print("relative error of images per split and class, relative size of VAL_TEST's groups")
    for shape in ((40, 40), (60, 200), (80, 80)):
        drawn = [(seed, Data.draw(seed, shape)) for seed in range(N_SETS)]
        own = [balance_of(data, s) for _, data in drawn if (s := split(data)) is not None]
        peer = [balance_of(data, stratified_group_k_fold(data, seed)) for seed, data in drawn]
        print(shape, "own", *np.mean(own, axis=0).round(3), flush=True)
        print(shape, "StratifiedGroupKFold", *np.mean(peer, axis=0).round(3), flush=True)


if __name__ == "__main__":
    main()

"""Balance of splits: the salt whose assignment comes closest to the wanted fractions per class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from components.shared.contracts.errors import DataError
from components.shared.data.splits import SPLITS, assign

Counts = npt.NDArray[np.int64]
_HELD_OUT = SPLITS.index("VAL_TEST")


@dataclass(frozen=True)
class Groups:
    """Groups of the data set.

    names: (G,), sorted. per_class: (G, K) int64, samples of each class. held_out: (G,) bool, groups
    that go to VAL_TEST as a whole.
    """

    names: list[str]
    per_class: Counts
    held_out: npt.NDArray[np.bool_]

    @classmethod
    def of(
        cls, groups: Sequence[str], labels: Sequence[int], n_classes: int, held_out: set[str]
    ) -> "Groups":
        """Count the groups of all samples.

        Args:
            groups: group of each sample.
            labels: class index of each sample.
            n_classes: number of classes.
            held_out: groups that go to VAL_TEST as a whole.
        """
        names, member = np.unique(np.array(groups, dtype=np.str_), return_inverse=True)
        per_class = np.zeros((len(names), n_classes), dtype=np.int64)
        np.add.at(per_class, (member, np.array(labels, dtype=np.int64)), 1)
        listed = [str(name) for name in names]
        return cls(listed, per_class, np.array([name in held_out for name in listed], dtype=bool))

    def splits(self, salt: str, fractions: Mapping[str, float]) -> Counts:
        """Return (G,) int64, the index into SPLITS of each group.

        With held-out groups, the other groups are assigned to all splits but VAL_TEST.
        """
        if not self.held_out.any():
            return assign(salt, self.names, fractions)
        others = {split: value for split, value in fractions.items() if split != "VAL_TEST"}
        return np.where(self.held_out, _HELD_OUT, assign(salt, self.names, others))

    def counts(self, splits: Counts) -> Counts:
        """Return (4, K) int64, the samples of each split and class."""
        counts = np.zeros((len(SPLITS), self.per_class.shape[1]), dtype=np.int64)
        np.add.at(counts, splits, self.per_class)
        return counts


def best_salt(groups: Groups, fractions: Mapping[str, float], seed: int, n_salts: int) -> str:
    """Return the salt with the least sum of squared relative errors of the counts.

    The samples of each class in each split are compared with fraction * total; VAL_TEST is not
    compared where it is held out.

    Args:
        groups: groups of the data set.
        fractions: split -> wanted fraction.
        seed: prefix of the candidates.
        n_salts: number of candidates.
    """
    compared = slice(0, _HELD_OUT) if groups.held_out.any() else slice(None)
    fraction = np.array([fractions[split] for split in SPLITS])[compared]
    total = groups.per_class[~groups.held_out].sum(axis=0)
    wanted = np.maximum((fraction / fraction.sum())[:, None] * total, 1)

    def error(salt: str) -> float:
        counts = groups.counts(groups.splits(salt, fractions))[compared]
        return float((((counts - wanted) / wanted) ** 2).sum())

    return min((f"{seed}-{candidate}" for candidate in range(n_salts)), key=error)


def refuse_missing(
    counts: Counts, class_names: Sequence[str], min_per_class: int, salt: str
) -> None:
    """Raise DataError naming every split and class with fewer than `min_per_class` samples."""
    missing = [
        f"{split} has {counts[row, column]} of class {name}"
        for row, split in enumerate(SPLITS)
        for column, name in enumerate(class_names)
        if counts[row, column] < min_per_class
    ]
    if missing:
        raise DataError(
            f"min_per_class={min_per_class} cannot be met: {'; '.join(missing)} (salt {salt!r}); "
            "add data or groups, change the fractions, increase n_salts, or decrease min_per_class"
        )


def text_table(counts: Counts, class_names: Sequence[str]) -> str:
    """Return a text table: samples of each split and class, and each split's fraction."""
    header = "".join(f"{name:>12}" for name in class_names)
    lines = [f"{'split':12}{header}{'all':>12}{'fraction':>9}"]
    for split, row in zip(SPLITS, counts.tolist(), strict=True):
        per_class = "".join(f"{n:>12}" for n in row)
        lines.append(f"{split:12}{per_class}{sum(row):>12}{sum(row) / counts.sum():>9.1%}")
    return "\n".join(lines)

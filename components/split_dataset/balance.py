"""Which salt shares the groups out in the wanted proportions, and does every split have enough of
every class?
"""

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
    """The data as the split sees them: names (G,), samples per class (G, K), and whether held out
    (G,) bool.
    """

    names: list[str]
    per_class: Counts
    held_out: npt.NDArray[np.bool_]

    @classmethod
    def of(
        cls, groups: Sequence[str], labels: Sequence[int], n_classes: int, held_out: set[str]
    ) -> "Groups":
        """From one group and one label per sample; `held_out` are groups that go to VAL_TEST as a
        whole.
        """
        names, number = np.unique(np.array(groups, dtype=np.str_), return_inverse=True)
        per_class = np.zeros((len(names), n_classes), dtype=np.int64)
        np.add.at(per_class, (number, np.array(labels, dtype=np.int64)), 1)
        listed = [str(name) for name in names]
        return cls(listed, per_class, np.array([name in held_out for name in listed], dtype=bool))

    def splits(self, salt: str, shares: Mapping[str, float]) -> Counts:
        """(G,) index into SPLITS. With held-out groups, the others share out what is not
        VAL_TEST.
        """
        if not self.held_out.any():
            return assign(salt, self.names, shares)
        others = {split: share for split, share in shares.items() if split != "VAL_TEST"}
        return np.where(self.held_out, _HELD_OUT, assign(salt, self.names, others))

    def counts(self, splits: Counts) -> Counts:
        """(4, K) samples per split and class."""
        counts = np.zeros((len(SPLITS), self.per_class.shape[1]), dtype=np.int64)
        np.add.at(counts, splits, self.per_class)
        return counts


def best_salt(groups: Groups, shares: Mapping[str, float], seed: int, n_salts: int) -> str:
    """Of `n_salts` candidates, the one with the least sum of squared relative errors of the counts.

    Counted are the samples of each class in each split, against share * total; VAL_TEST is not
    counted when held out.
    """
    counted = slice(0, _HELD_OUT) if groups.held_out.any() else slice(None)
    share = np.array([shares[split] for split in SPLITS])[counted]
    total = groups.per_class[~groups.held_out].sum(axis=0)
    wanted = np.maximum((share / share.sum())[:, None] * total, 1)

    def error(salt: str) -> float:
        counts = groups.counts(groups.splits(salt, shares))[counted]
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
            "add data or groups, change the shares, raise n_salts, or lower min_per_class"
        )


def table(counts: Counts, class_names: Sequence[str]) -> str:
    """A short text table: samples per split and class, and each split's share."""
    lines = [
        f"{'split':12}"
        + "".join(f"{name:>12}" for name in class_names)
        + f"{'all':>12}{'share':>9}"
    ]
    for split, row in zip(SPLITS, counts, strict=True):
        share = row.sum() / counts.sum()
        lines.append(
            f"{split:12}" + "".join(f"{n:>12}" for n in row) + f"{row.sum():>12}{share:>9.1%}"
        )
    return "\n".join(lines)

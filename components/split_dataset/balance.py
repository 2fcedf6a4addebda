"""Assignment of new groups to splits: stratified by class and size, random, feasible first.

Of each class, rarest first, every split gets its number of groups, drawn by salted hashes. The salt
with the best balance of images is chosen among candidates (rerandomisation; Morgan and Rubin,
Annals of Statistics 2012).

Own code, because scikit-learn's StratifiedGroupKFold knows neither unequal fractions nor fewest
groups, nor groups that have a split already. It balances images at least as well, but by placing
each group where it fits best: certificates need groups that are drawn.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from components.shared.contracts.errors import DataError
from components.shared.contracts.listing import first_of, printable
from components.shared.data.splits import SPLITS, assign, unit_hashes

Counts = npt.NDArray[np.int64]
NOT_ASSIGNED = -1
_HELD_OUT = SPLITS.index("VAL_TEST")
_CALIB = SPLITS.index("VAL_CALIB")
# Of two splits with an equal claim to a group, the earlier one in this order gets it.
_PRIORITY = tuple(SPLITS.index(name) for name in ("VAL_CALIB", "VAL_TEST", "VAL_SELECT", "TRAIN"))
_REPAIRED = 8  # best candidates that are repaired where none is feasible
_TRIED = 200  # groups that a repair tries for one split and class


@dataclass(frozen=True)
class Groups:
    """Groups of the data set.

    names: (G,), sorted. per_class: (G, K) int64, samples of each class. earlier: (G,) int64, the
    index into SPLITS of groups that have a split already, else NOT_ASSIGNED. holds_out: whether
    VAL_TEST consists of held-out groups, so that no other group is assigned to it.
    """

    names: list[str]
    per_class: Counts
    earlier: Counts
    holds_out: bool = False

    @classmethod
    def of(
        cls,
        groups: Sequence[str],
        labels: Sequence[int],
        n_classes: int,
        *,
        held_out: Set[str] = frozenset(),
        earlier: Mapping[str, str] | None = None,
    ) -> "Groups":
        """Count the groups of all samples.

        Args:
            groups: group of each sample.
            labels: class index of each sample.
            n_classes: number of classes.
            held_out: groups that go to VAL_TEST as a whole.
            earlier: group -> split, of groups that have one already.
        """
        names, member = np.unique(np.array(groups, dtype=np.str_), return_inverse=True)
        per_class = np.zeros((len(names), n_classes), dtype=np.int64)
        np.add.at(per_class, (member, np.array(labels, dtype=np.int64)), 1)

        listed = [str(name) for name in names]
        fixed = {**dict.fromkeys(held_out, "VAL_TEST"), **(earlier or {})}
        splits = [SPLITS.index(fixed[n]) if n in fixed else NOT_ASSIGNED for n in listed]

        return cls(listed, per_class, np.array(splits, dtype=np.int64), bool(held_out))

    def counts(self, splits: Counts) -> Counts:
        """Return (4, K) int64, the samples of each split and class, for splits (G,)."""
        return _summed(self.per_class, splits)

    def group_counts(self, splits: Counts) -> Counts:
        """Return (4, K) int64, the groups of each split that have a sample of the class."""
        return _summed((self.per_class > 0).astype(np.int64), splits)


@dataclass(frozen=True)
class Limits:
    """What every split needs: samples of each class, and groups of each class in VAL_CALIB."""

    min_per_class: int
    min_groups_per_class: int

    @property
    def groups(self) -> Counts:
        """(4,) int64, fewest groups of every class in each split."""
        fewest = np.ones(len(SPLITS), dtype=np.int64)
        fewest[_CALIB] = self.min_groups_per_class
        return fewest

    def missing(self, groups: Groups, splits: Counts) -> tuple[Counts, Counts]:
        """Return (4, K) int64 each: groups and samples that each split and class lacks."""
        lacking_groups = np.maximum(self.groups[:, None] - groups.group_counts(splits), 0)
        return lacking_groups, np.maximum(self.min_per_class - groups.counts(splits), 0)


class Assignment(NamedTuple):
    """A salt, and the splits (G,) int64 that it leads to, as indices into SPLITS."""

    salt: str
    splits: Counts


def hashed(groups: Groups, fractions: Mapping[str, float], salt: str) -> Assignment:
    """Assign every group without a split by the hash of its name alone."""
    allowed = SPLITS[: len(SPLITS) - groups.holds_out]
    by_hash = assign(salt, groups.names, {split: fractions[split] for split in allowed})
    return Assignment(
        salt, np.where(groups.earlier == NOT_ASSIGNED, by_hash, groups.earlier).astype(np.int64)
    )


def stratified(
    groups: Groups, fractions: Mapping[str, float], limits: Limits, salt: str
) -> Assignment:
    """Deal out the groups without a split, class by class: stratified and systematic sampling.

    A group belongs to the rarest of its classes, by the number of groups. Of each class every split
    first gets what `limits` asks for, then what it lacks to its fraction, whichever groups it has
    of earlier runs and of rarer classes. The groups of a class are listed from large to small, in
    the order of their salted hashes within each ten, and every split takes its seats at even
    distances from a random start: large groups are spread too, and every group has the same chance
    of a split.
    """
    splits = groups.earlier.copy()
    present = groups.per_class > 0
    rarest_first = np.argsort(present.sum(axis=0), kind="stable")
    stratum = rarest_first[np.argmax(present[:, rarest_first], axis=1)]
    order = np.argsort(unit_hashes(salt, groups.names), kind="stable")
    open_order = order[splits[order] == NOT_ASSIGNED]

    fraction = _allowed_fractions(groups, fractions)
    fewest = np.where(fraction > 0, limits.groups, 0)

    for column in rarest_first:
        dealt = open_order[stratum[open_order] == column]
        if not len(dealt):
            continue
        has_one = splits[present[:, column] & (splits != NOT_ASSIGNED)]
        quotas = _quotas(len(dealt), np.bincount(has_one, minlength=len(SPLITS)), fraction, fewest)
        by_size = _by_size(dealt, groups.per_class[dealt, column])
        splits[by_size] = _seats(quotas, salt, int(column))

    return Assignment(salt, splits)


def best_assignment(
    groups: Groups, fractions: Mapping[str, float], limits: Limits, seed: int, n_salts: int
) -> Assignment:
    """Return the best of `n_salts` stratified assignments: feasible first, then balanced.

    Feasible: every split has the groups and samples of each class that `limits` asks for. Where no
    candidate is, single groups of the best ones are moved or exchanged until one is, or none helps.

    Args:
        groups: groups of the data set.
        fractions: split -> wanted fraction.
        limits: what every split needs.
        seed: prefix of the candidate salts.
        n_salts: number of candidates.
    """

    def key(candidate: Assignment) -> tuple[int, int, float]:
        return (
            *_lacking(groups, limits, candidate.splits),
            imbalance(groups, fractions, candidate),
        )

    salts = (f"{seed}-{number}" for number in range(n_salts))
    candidates = (stratified(groups, fractions, limits, salt) for salt in salts)
    ranked = sorted(((key(candidate), candidate) for candidate in candidates), key=_first)
    if ranked[0][0][:2] == (0, 0):
        return ranked[0][1]

    repaired = [_repaired(groups, limits, candidate) for _, candidate in ranked[:_REPAIRED]]
    return min(repaired, key=key)


def imbalance(groups: Groups, fractions: Mapping[str, float], found: Assignment) -> float:
    """Return how far the samples of each split and class are from what is wanted.

    It is a sum of squares, each of a difference relative to the larger of both numbers, so that a
    surplus costs no more than a lack, at most 1. VAL_TEST is not compared where it is held out.
    """
    compared = slice(0, _HELD_OUT) if groups.holds_out else slice(None)
    counts = groups.counts(found.splits)[compared]
    fraction = np.array([fractions[split] for split in SPLITS])[compared]
    wanted = (fraction / fraction.sum())[:, None] * counts.sum(axis=0)
    return float(((counts - wanted) ** 2 / np.maximum(np.maximum(counts, wanted), 1) ** 2).sum())


def refuse_missing(
    groups: Groups, splits: Counts, class_names: Sequence[str], limits: Limits, n_salts: int
) -> None:
    """Raise DataError naming every split and class that lacks groups or samples.

    The message says whether no assignment at all can have them, or none was found.
    """
    lacking_groups, lacking = limits.missing(groups, splits)
    if not lacking_groups.any() and not lacking.any():
        return

    too_small = list(_too_small(groups, class_names, limits))
    if too_small:
        raise DataError(
            f"min_per_class={limits.min_per_class} cannot be met: the data cannot be split four"
            f" ways, whichever the fractions: {first_of(too_small, separator='; ')}; add groups of"
            " these classes, leave the classes out, or decrease min_per_class,"
            " min_groups_per_class or, where look-alikes unite groups, near_duplicate_distance"
        )

    n_groups, n_samples = groups.group_counts(splits), groups.counts(splits)
    missing = [
        f"{split} has {n_samples[row, column]} of class {name} in {n_groups[row, column]} group(s)"
        for row, split in enumerate(SPLITS)
        for column, name in enumerate(class_names)
        if lacking_groups[row, column] or lacking[row, column]
    ]

    n_earlier = int((groups.earlier != NOT_ASSIGNED).sum())
    kept = f" ({n_earlier} groups keep their split)" if n_earlier else ""
    raise DataError(
        f"min_per_class={limits.min_per_class} and min_groups_per_class="
        f"{limits.min_groups_per_class} are not met by any of {n_salts} assignment(s) tried{kept}:"
        f" {first_of(missing, separator='; ')}; add groups of these classes, increase n_salts, or"
        " decrease min_per_class or min_groups_per_class"
    )


def _too_small(groups: Groups, class_names: Sequence[str], limits: Limits) -> Iterator[str]:
    """Yield the classes that no assignment can give to every split."""
    n_groups = (groups.per_class > 0).sum(axis=0)
    n_samples = groups.per_class.sum(axis=0)
    needed = int(limits.groups.sum())
    for column, name in enumerate(class_names):
        few = n_groups[column] < needed
        if few or n_samples[column] < limits.min_per_class * len(SPLITS):
            yield (
                f"class {name} has {n_samples[column]} images in {n_groups[column]} group(s), needs"
                f" {limits.min_per_class * len(SPLITS)} in {needed}"
                f" ({limits.min_groups_per_class} in VAL_CALIB, 1 in every other split)"
            )


def _allowed_fractions(groups: Groups, fractions: Mapping[str, float]) -> npt.NDArray[np.float64]:
    """Return (4,) float64 that adds up to 1; 0 for a VAL_TEST that is held out."""
    fraction = np.array([fractions[split] for split in SPLITS], dtype=np.float64)
    if groups.holds_out:
        fraction[_HELD_OUT] = 0.0
    return np.asarray(fraction / fraction.sum())


def _quotas(
    n_new: int, present: Counts, fraction: npt.NDArray[np.float64], fewest: Counts
) -> Counts:
    """Return (4,) int64, how many of `n_new` groups each split gets; they add up to `n_new`.

    present: (4,) int64, groups that each split has already.
    """
    quotas = np.zeros(len(SPLITS), dtype=np.int64)
    for split in _PRIORITY:
        lack = max(int(fewest[split] - present[split]), 0)
        quotas[split] = min(lack, n_new - int(quotas.sum()))
    minimum = quotas.copy()

    # What is left goes to the splits below their fraction, in proportion to what they lack; the
    # last few one by one.
    lacking = np.maximum(fraction * (n_new + present.sum()) - present - quotas, 0)
    left = n_new - int(quotas.sum())
    if lacking.sum() > 0:
        quotas += np.floor(lacking * min(left / lacking.sum(), 1)).astype(np.int64)

    priority = np.array(_PRIORITY)
    while quotas.sum() < n_new:
        deficit = fraction * (n_new + present.sum()) - present - quotas
        deficit[fraction == 0] = -np.inf
        quotas[priority[np.argmax(deficit[priority])]] += 1

    assert (quotas >= minimum).all()
    return quotas


def _by_size(dealt: Counts, sizes: Counts) -> Counts:
    """Return the groups `dealt` from large to small, but in their own order within each ten."""
    ten = np.empty(len(dealt), dtype=np.int64)
    ten[np.argsort(-sizes, kind="stable")] = np.arange(len(dealt)) // 10
    return dealt[np.argsort(ten, kind="stable")]


def _seats(quotas: Counts, salt: str, column: int) -> Counts:
    """Return (n,) int64, splits in a sequence in which each recurs evenly from a random start."""
    starts = unit_hashes(salt, [f"{column}\0{split}" for split in SPLITS])
    positions = [
        (np.arange(quota) + start) / max(quota, 1)
        for quota, start in zip(quotas.tolist(), starts.tolist(), strict=True)
    ]
    splits = np.repeat(np.arange(len(SPLITS)), quotas)
    return splits[np.argsort(np.concatenate(positions), kind="stable")]


def _lacking(groups: Groups, limits: Limits, splits: Counts) -> tuple[int, int]:
    """Return how many groups and samples all splits and classes lack together."""
    lacking_groups, lacking = limits.missing(groups, splits)
    return int(lacking_groups.sum()), int(lacking.sum())


def _repaired(groups: Groups, limits: Limits, found: Assignment) -> Assignment:
    """Move or exchange single groups, while that makes the splits lack less."""
    splits = found.splits.copy()
    order = np.argsort(unit_hashes(found.salt, groups.names), kind="stable")
    movable = order[groups.earlier[order] == NOT_ASSIGNED]
    best = _lacking(groups, limits, splits)

    while best != (0, 0):
        change = next(
            (
                change
                for change in _changes(groups, limits, splits, movable)
                if _lacking(groups, limits, _changed(splits, change)) < best
            ),
            None,
        )
        if change is None:
            break
        splits = _changed(splits, change)
        best = _lacking(groups, limits, splits)

    return Assignment(found.salt, splits)


def _changes(
    groups: Groups, limits: Limits, splits: Counts, movable: Counts
) -> Iterator[dict[int, int]]:
    """Yield exchanges and moves, group -> new split, that bring a split samples that it lacks."""
    lacking_groups, lacking = limits.missing(groups, splits)
    for split, column in np.argwhere((lacking_groups > 0) | (lacking > 0)):
        if groups.holds_out and split == _HELD_OUT:
            continue

        has_class = movable[groups.per_class[movable, column] > 0]
        donors = has_class[splits[has_class] != split][:_TRIED]
        inside = has_class[splits[has_class] == split][:_TRIED]
        for donor in donors.tolist():
            for other in inside.tolist():
                yield {donor: int(split), other: int(splits[donor])}
        for donor in donors.tolist():
            yield {donor: int(split)}


def _changed(splits: Counts, change: Mapping[int, int]) -> Counts:
    changed = splits.copy()
    for group, split in change.items():
        changed[group] = split
    return changed


def _summed(values: Counts, splits: Counts) -> Counts:
    summed = np.zeros((len(SPLITS), values.shape[1]), dtype=np.int64)
    np.add.at(summed, splits, values)
    return summed


def _first(pair: tuple[tuple[int, int, float], Assignment]) -> tuple[int, int, float]:
    return pair[0]


def text_table(counts: Counts, group_counts: Counts, class_names: Sequence[str]) -> list[str]:
    """Return a text table's lines, one a class: samples, and groups in brackets, of each split.

    Args:
        counts: (4, K) samples.
        group_counts: (4, K) groups that have the class.
        class_names: (K,) names; a column is as wide as its widest cell.
    """
    header = ["class", *SPLITS]
    rows = [
        [printable(name), *(f"{n} ({g})" for n, g in zip(of_class, of_groups, strict=True))]
        for name, of_class, of_groups in zip(
            class_names, counts.T.tolist(), group_counts.T.tolist(), strict=True
        )
    ]
    totals = counts.sum(axis=1)
    rows.append(["all", *(str(total) for total in totals.tolist())])
    rows.append(["fraction", *(f"{part:.1%}" for part in (totals / totals.sum()).tolist())])

    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if position == 0 else cell.rjust(width)
            for position, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in [header, *rows]
    ]

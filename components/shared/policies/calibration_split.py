"""Split of VAL_CALIB into samples that shape a selection rule and samples that test it.

Whole groups are exchangeable, images of one place are not. So groups are drawn into two parts: all
images of the tuning groups fit the calibrator and propose thresholds; of every other group one
image, drawn at random, takes part in the tests. The tested images are then exchangeable, and the
guarantee is about a random image of a random group.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from components.shared.calibration.compare import FittedCalibrator, LabelledLogits, fit_named
from components.shared.contracts.errors import InfeasibleError
from components.shared.policies.logits import Logits
from components.shared.stats.bootstrap import membership
from components.shared.stats.group_needs import n_tested_groups
from components.shared.stats.metrics import Integers

_FEWEST_GROUPS = 4  # two for each part


@dataclass(frozen=True)
class CalibrationSplit:
    """Row numbers of both parts of VAL_CALIB.

    tuning: (n,) int64, all rows of the tuning groups; calibration: (m,) int64, one row of each
    other group; calibration_images: (k,) int64, all rows of the other groups.
    """

    tuning: Integers
    calibration: Integers
    calibration_images: Integers


def draw_calibration_split(
    groups: Sequence[str], tuning_fraction: float, seed: int, max_group_images: int | None = None
) -> CalibrationSplit:
    """Draw a fraction of the groups into the tuning part, and one image of each other group.

    Args:
        groups: (N,) group name of each sample of VAL_CALIB.
        tuning_fraction: fraction of the groups, in (0, 1); each part gets at least two.
        seed: seed of the draws.
        max_group_images: limit of a group's size that a guarantee relies on; None: none does.

    Raises:
        InfeasibleError: fewer than 4 groups, or a group beyond the limit.
    """
    member = membership(groups, len(groups))
    n_groups = int(member.max()) + 1
    if n_groups < _FEWEST_GROUPS:
        raise InfeasibleError(
            f"VAL_CALIB has {n_groups} group(s), a policy with a guarantee needs at least"
            f" {_FEWEST_GROUPS}; use data of more groups or a larger calib_fraction"
        )

    largest = int(np.bincount(member).max())
    if max_group_images is not None and largest > max_group_images:
        raise InfeasibleError(
            f"max_group_images={max_group_images}, but VAL_CALIB has a group of {largest} images;"
            " set it to the size that no group will exceed, or to none for a guarantee per group"
        )

    rng = np.random.default_rng([seed, n_groups, len(member)])
    n_tuning = n_groups - n_tested_groups(n_groups, tuning_fraction)
    tuning_groups = rng.permutation(n_groups)[:n_tuning]
    in_tuning = np.isin(member, tuning_groups)
    others = rng.permutation(np.flatnonzero(~in_tuning))

    return CalibrationSplit(
        tuning=np.flatnonzero(in_tuning),
        calibration=_first_of_each(member, others),
        calibration_images=np.flatnonzero(~in_tuning),
    )


def fit_on_tuning(
    name: str, logits: Logits, split: CalibrationSplit, seed: int
) -> FittedCalibrator:
    """Fit a calibrator on the tuning part; none, with the reason, where it cannot carry one.

    A policy without a calibrator decides on the model's own probabilities, and its certificate
    holds all the same: the tests are on the other part.

    Args:
        name: name of the calibrator, or "auto".
        logits: logits of VAL_CALIB.
        split: both parts of VAL_CALIB.
        seed: seed of cross-fitting.
    """
    rows = split.tuning
    groups = [logits.groups[row] for row in rows]
    samples = LabelledLogits(logits.logits[rows], logits.labels[rows], groups, logits.class_names)
    return fit_named(name, samples, seed)


def one_per_group(groups: Sequence[str], seed: int) -> Integers:
    """Return (G,) int64 row numbers, ascending: one image of each group, drawn at random."""
    order = np.random.default_rng([seed, len(groups)]).permutation(len(groups))
    return _first_of_each(membership(groups, len(groups)), order)


def _first_of_each(member: Integers, order: Integers) -> Integers:
    """Return, of the rows in `order`, the first of each group, ascending."""
    _, first = np.unique(member[order], return_index=True)
    return np.sort(order[first])

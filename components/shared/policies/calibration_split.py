"""The parts of VAL_CALIB: samples that shape a selection rule, and samples that test it.

Whole groups are exchangeable, images of one place are not. So groups are drawn into two parts: all
images of the tuning groups fit the calibrator and propose thresholds; of every other group one
image, drawn at random, takes part in the tests. The tested images are then exchangeable, and the
guarantee is about a random image of a random group.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from components.shared.contracts.errors import DataError
from components.shared.policies.certify import Samples
from components.shared.stats.bootstrap import membership
from components.shared.stats.metrics import Bools, Floats, Integers


@dataclass(frozen=True)
class CalibrationSplit:
    """Rows (n,) int64 of the tuning part, and one row (m,) of each group of the calibration
    part.
    """

    tuning: Integers
    calibration: Integers


def draw_parts(groups: Sequence[str], tuning_fraction: float, seed: int) -> CalibrationSplit:
    """Draw `tuning_fraction` of the groups into the tuning part, and one image of each other group.

    Raises DataError with fewer than 4 groups.
    """
    member = membership(groups, len(groups))
    n_groups = int(member.max()) + 1
    if n_groups < 4:
        raise DataError(
            f"VAL_CALIB has {n_groups} group(s), a policy that promises something needs at least 4"
        )
    rng = np.random.default_rng([seed, n_groups, len(member)])
    n_tuning = min(max(round(tuning_fraction * n_groups), 2), n_groups - 2)
    tuning_groups = rng.permutation(n_groups)[:n_tuning]
    in_tuning = np.isin(member, tuning_groups)
    rest = rng.permutation(np.flatnonzero(~in_tuning))
    return CalibrationSplit(np.flatnonzero(in_tuning), _first_of_each(member, rest))


def one_per_group(groups: Sequence[str], seed: int) -> Integers:
    """Rows (G,) int64: one image of each group, drawn at random."""
    order = np.random.default_rng([seed, len(groups)]).permutation(len(groups))
    return _first_of_each(membership(groups, len(groups)), order)


def _first_of_each(member: Integers, order: Integers) -> Integers:
    """Sorted, of the rows in `order`, the first of each group."""
    _, first = np.unique(member[order], return_index=True)
    return np.sort(order[first])


def samples_for(risk: str, truth: Bools, decision: Bools, confidence: Floats) -> Samples:
    """What the risk counts: "error" all samples, "fnr" the positives, of which a negative decision
    is a loss.
    """
    counted = truth if risk == "fnr" else np.ones(len(truth), dtype=bool)
    return Samples(confidence, np.asarray(truth != decision), counted)


def only(samples: Samples, chosen: Bools) -> Samples:
    """The same samples, of which only the chosen ones can be accepted."""
    return Samples(
        np.where(chosen, samples.confidence, -np.inf), samples.loss, samples.counted & chosen
    )


def at(samples: Samples, rows: Integers) -> Samples:
    """The samples of some rows."""
    return Samples(samples.confidence[rows], samples.loss[rows], samples.counted[rows])

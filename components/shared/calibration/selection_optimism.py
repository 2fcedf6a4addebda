"""By how much the best of many candidates looks better than it is, and what it gains without that.

The candidates were compared on the samples of VAL_SELECT, and the largest of many noisy values is
too large. So the choice is repeated without one fold of groups, and the chosen candidate judged on
that fold alone, each fold in turn (nested selection: Varma, Simon, BMC Bioinformatics 2006). What
is judged is the act of choosing among these candidates, with four fifths of the groups; a choice
inside a candidate, such as that of its epoch, is the same in all of them and is not corrected.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from components.shared.calibration.folds import group_folds
from components.shared.calibration.model_selection import METRICS
from components.shared.contracts.adaptations import monitored
from components.shared.contracts.outcomes import Outcomes
from components.shared.stats.bootstrap import Difference, paired_difference
from components.shared.stats.metrics import Floats, Integers

_N_REPEATS = 5  # assignments of groups to folds


@dataclass(frozen=True)
class Selection:
    """The best of several candidates.

    Attributes:
        chosen: Its position; the first of equals.
        value: Its metric on all samples, which flatters it.
        corrected: The metric of the choice on held-out folds; None where groups or classes are too
            few.
        first: The metric of the first candidate, which nobody has chosen.
        gain: Corrected metric minus that of the first candidate, with its 95 % interval over
            groups; None like `corrected`.
    """

    chosen: int
    value: float
    corrected: float | None
    first: float
    gain: Difference | None

    @property
    def optimism(self) -> float | None:
        """Value minus corrected value, which for the NLL is negative."""
        return None if self.corrected is None else self.value - self.corrected


def best_of(
    logits: npt.NDArray[np.floating],
    labels: Integers,
    member: Integers,
    outcomes: Outcomes,
    monitor: str,
    *,
    seed: int,
    n_bootstrap: int,
) -> Selection:
    """Choose the candidate with the best monitored metric, and judge the choice.

    Args:
        logits: (T, N, C) of each candidate.
        labels: (N,) int64 class indices.
        member: (N,) int64 number of each sample's group.
        outcomes: Outcomes of the task.
        monitor: Name of the metric.
        seed: Seed of the folds and of the interval.
        n_bootstrap: Draws of the interval.
    """
    values = _values(logits, labels, outcomes, monitor)
    chosen = int(np.argmax(monitored_values(monitor, values)))
    value, first = float(values[chosen]), float(values[0])
    if len(np.unique(member)) < 2:
        return Selection(chosen, value, None, first, None)

    groups = member.astype(str).tolist()
    crossed = [
        _held_out(logits, labels, group_folds(labels, groups, seed + i), outcomes, monitor)
        for i in range(_N_REPEATS)
    ]
    metric = METRICS[monitor]

    def held_out_metric(weights: Floats | None) -> Floats:
        found = [metric(each, labels, outcomes, weights) for each in crossed]
        return np.asarray(np.mean(found, axis=0))

    corrected = float(held_out_metric(None))
    if not np.isfinite(corrected):
        return Selection(chosen, value, None, first, None)

    of_first = partial(metric, logits[0].astype(np.float64), labels, outcomes)
    gain = paired_difference(held_out_metric, of_first, member, n_bootstrap, seed)
    return Selection(chosen, value, corrected, first, gain)


def monitored_values(monitor: str, values: Floats) -> Floats:
    """Return the values such that larger is better, and none is better than a missing one."""
    signed = np.array([monitored(monitor, float(value)) for value in values])
    return np.where(np.isfinite(signed), signed, -np.inf)


def _held_out(
    logits: npt.NDArray[np.floating],
    labels: Integers,
    folds: Integers,
    outcomes: Outcomes,
    monitor: str,
) -> Floats:
    """Return logits (N, C): of each fold those of the candidate that is the best on the others."""
    result = np.empty(logits.shape[1:])
    for fold in np.unique(folds):
        held = folds == fold
        values = _values(logits[:, ~held], labels[~held], outcomes, monitor)
        best = int(np.argmax(monitored_values(monitor, values)))
        result[held] = logits[best, held]
    return result


def _values(
    logits: npt.NDArray[np.floating], labels: Integers, outcomes: Outcomes, monitor: str
) -> Floats:
    """Return (T,) the metric of each candidate."""
    metric = METRICS[monitor]
    return np.array(
        [float(metric(each.astype(np.float64), labels, outcomes, None)) for each in logits]
    )

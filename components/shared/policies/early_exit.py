"""Early exit: deciding from the full image alone, without its tiles, where that changes too little.

Where the aggregation only lets the margin grow (maximum, noisy-or; log-sum-exp down to a known
loss), a full image that is positive by more than the loss is positive for certain. Elsewhere a
distance from the margins at which the decision changes is fitted on VAL_CALIB, so that the fraction
of images whose decision changes is at most a target, with probability 1 - delta, for a random image
of a random group.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.shared.contracts.artifacts import write_json
from components.shared.contracts.documents import is_number, read_object
from components.shared.contracts.errors import ArtifactError
from components.shared.contracts.listing import first_of, shown
from components.shared.policies.calibration_split import one_per_group
from components.shared.policies.logits import Logits
from components.shared.policies.policy import Policy
from components.shared.stats.bounds import clopper_pearson_upper
from components.shared.stats.metrics import Bools, Floats

DOCUMENT = "early_exit.json"
DELTA = 0.1  # of the fitted bound, the default of all guarantees
_FRACTIONS = ("max_changed", "delta", "changed_upper_bound")
# Log-odds beyond which no trained model's output lies, in steps finer than any decision needs.
_GRID = np.linspace(-60, 60, 12_001)


@dataclass(frozen=True)
class EarlyExit:
    """Margins of the full image, before calibration, at which its tiles need not be looked at.

    Attributes:
        n_views: views of an image.
        certain_from: positive from this margin on, whatever the tiles show; None without a bound.
        positive_from: fitted limit of positive decisions; None where there is none.
        negative_to: fitted limit of negative decisions; None where there is none.
        max_changed: with probability 1 - delta a random image of a random group gets another
            decision with at most this probability.
        delta: probability with which the fitted bound may fail.
        n_images: images that were tested. This and the next two are the record of the fit, for
            people who read the document.
        n_changed: tested images whose decision changed.
        changed_upper_bound: Clopper-Pearson bound of the changed fraction; 0 where nothing is
            fitted.
    """

    n_views: int
    certain_from: float | None
    positive_from: float | None
    negative_to: float | None
    max_changed: float
    delta: float
    n_images: int
    n_changed: int
    changed_upper_bound: float

    def exits(self, full_image_margin: Floats) -> Bools:
        """Return (N,) bool, True where the margin (N,) of the full image suffices."""
        enough = np.zeros(len(full_image_margin), dtype=bool)
        for bound in (self.certain_from, self.positive_from):
            if bound is not None:
                enough |= full_image_margin >= bound
        if self.negative_to is not None:
            enough |= full_image_margin <= self.negative_to
        return enough

    def to_json(self) -> dict[str, Any]:
        """Return the document of early_exit.json."""
        return asdict(self)


def logits_of_margin(margin: Floats, positive: int) -> Floats:
    """Return (N, 2) logits of margins (N,), as an aggregation's: minus and plus half the margin."""
    return np.stack([margin, -margin] if positive == 0 else [-margin, margin], axis=1) / 2


def fit_early_exit(
    policy: Policy, logits: Logits, *, max_changed: float, seed: int
) -> EarlyExit | None:
    """Fit the early exit of a policy on VAL_CALIB; None for one view, or a multiclass task.

    The fraction of changed decisions only falls as the distance grows, so the least distance whose
    bound holds for all larger ones has the same level (Bates et al., "Distribution-free,
    risk-controlling prediction sets", J. ACM 2021, theorem 1).

    Args:
        policy: the policy whose decisions the exits must not change.
        logits: logits of VAL_CALIB.
        max_changed: largest fraction of images with another decision, in [0, 1).
        seed: draws the image of each group.
    """
    is_binary = policy.outcomes.positive is not None
    if logits.full_image_margin is None or logits.views is None or not is_binary:
        return None

    negative_to, positive_from = decision_edges(policy)
    lower_bound = logits.views.lower_bound
    certain_from = None
    if lower_bound is not None and positive_from is not None:
        certain_from = positive_from - lower_bound

    rows = one_per_group(logits.groups, seed)
    margin = logits.full_image_margin[rows].astype(np.float64)
    changed = decisions_of_margin(policy, margin) != policy.decide(logits.logits[rows])
    distance = _distance(margin, negative_to, positive_from)
    if certain_from is not None:
        # An exit that is certain needs no fitted distance.
        distance = np.where(margin >= certain_from, -np.inf, distance)

    least, n_changed = _least_distance(distance, changed, max_changed)
    without_fit = EarlyExit(
        n_views=logits.views.count,
        certain_from=certain_from,
        positive_from=None,
        negative_to=None,
        max_changed=max_changed,
        delta=DELTA,
        n_images=len(rows),
        n_changed=n_changed,
        changed_upper_bound=0.0,
    )
    if least is None:
        return without_fit

    return replace(
        without_fit,
        positive_from=_shift(positive_from, least),
        negative_to=_shift(negative_to, -least),
        changed_upper_bound=float(clopper_pearson_upper(n_changed, len(rows), DELTA)),
    )


def write_early_exit(directory: Path, early_exit: EarlyExit | None) -> None:
    """Write early_exit.json into a policy's staging directory, unless there is no early exit."""
    if early_exit is not None:
        write_json(directory / DOCUMENT, early_exit.to_json())


def read_early_exit(directory: Path) -> EarlyExit | None:
    """Read the early exit of a verified Policy artifact or bundle; None where it holds none.

    Raises:
        ArtifactError: the document is damaged.
    """
    file = directory / DOCUMENT
    if not file.is_file():
        return None

    found = read_object(file, EarlyExit)
    wrong = [
        f"{name}={shown(value)}"
        for name, value in asdict(found).items()
        if not (value is None or is_number(value))
        or (name.startswith("n_") and value < 0)
        or (name in _FRACTIONS and not 0 <= value <= 1)
    ]
    if wrong or found.n_views < 1:
        raise ArtifactError(
            f"{file}: {first_of(wrong) or 'n_views=0'} out of range; fit the policy again"
        )
    return found


def decisions_of_margin(policy: Policy, full_image_margin: Floats) -> npt.NDArray[np.str_]:
    """Return the policy's decisions (N,) from margins (N,) of full images alone."""
    return policy.decide(logits_of_margin(full_image_margin, policy.outcomes.positive_index))


def decision_edges(policy: Policy) -> tuple[float | None, float | None]:
    """Return the margins up to which all decisions are negative, and from which all are positive.

    They are exact to 0.01; None where there is no such margin.
    """
    negative, positive = policy.outcomes.names
    decided = decisions_of_margin(policy, _GRID)
    all_negative = np.logical_and.accumulate(decided == negative)
    all_positive = np.logical_and.accumulate(decided[::-1] == positive)[::-1]
    negative_to = float(_GRID[np.flatnonzero(all_negative)[-1]]) if all_negative.any() else None
    positive_from = float(_GRID[np.flatnonzero(all_positive)[0]]) if all_positive.any() else None
    return negative_to, positive_from


def _shift(edge: float | None, distance: float) -> float | None:
    """Return the edge moved by a distance; None where there is no edge."""
    return None if edge is None else edge + distance


def _distance(
    full_image_margin: Floats, negative_to: float | None, positive_from: float | None
) -> Floats:
    """Return (N,) how far each margin lies beyond the edge of its decision.

    It is -inf between the edges, where no exit is possible.
    """
    distance = np.full(len(full_image_margin), -np.inf)
    if negative_to is not None:
        beyond = full_image_margin <= negative_to
        distance = np.where(beyond, negative_to - full_image_margin, distance)
    if positive_from is not None:
        beyond = full_image_margin >= positive_from
        distance = np.where(beyond, full_image_margin - positive_from, distance)
    return distance


def _least_distance(
    distance: Floats, changed: Bools, max_changed: float
) -> tuple[float | None, int]:
    """Return the least distance that meets the bound, and how many tested images it changes.

    The distance is None where none meets the bound.
    """
    bounds = clopper_pearson_upper(np.arange(len(distance) + 1), len(distance), DELTA)
    allowed = np.flatnonzero(bounds <= max_changed)
    if not len(allowed):
        return None, 0

    changed_distances = np.sort(distance[changed & (distance >= 0)])[::-1]
    n_allowed = int(allowed[-1])
    # All changed images but the n_allowed most distant ones must stay below the least distance.
    limit = changed_distances[n_allowed] if len(changed_distances) > n_allowed else -np.inf
    candidates = distance[(distance >= 0) & (distance > limit)]
    if not len(candidates):
        return None, 0

    return float(candidates.min()), int((changed_distances > limit).sum())

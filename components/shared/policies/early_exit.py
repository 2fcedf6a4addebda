"""Is the whole image enough to know what the policy will say, so that its tiles need not be looked
at?

Where the aggregation only lets the margin grow (maximum, noisy-or; log-sum-exp down to a known
loss), a whole image that is positive by more than that is positive for certain. Elsewhere a
distance from where the decision changes is fitted on VAL_CALIB, so that the share of all images
whose decision changes is at most a target, surely.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.shared.contracts.artifacts import write_json
from components.shared.contracts.errors import ArtifactError, one_line
from components.shared.policies.calibration_split import one_per_group
from components.shared.policies.logits import Logits
from components.shared.policies.policy import NEGATIVE, POSITIVE, Policy
from components.shared.stats.bounds import clopper_pearson_upper
from components.shared.stats.metrics import Bools, Floats

DOCUMENT = "early_exit.json"
DELTA = 0.1  # of the fitted bound, as of other promises
# Log-odds beyond which no trained model's output lies, in steps finer than any decision needs.
_GRID = np.linspace(-60, 60, 12_001)


@dataclass(frozen=True)
class EarlyExit:
    """All thresholds are on the margin of the whole image before calibration; None where there is
    no such exit.

    certain_from: positive whatever the tiles say. positive_from and negative_to: fitted, so that
    with probability 1 - delta at most `max_changed` of images get another decision; of the n_images
    tested, n_changed did, and changed_upper_bound is that share's Clopper-Pearson bound.
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

    def exits(self, whole: Floats) -> Bools:
        """(N,) bool from margins (N,) of whole images: no tile is needed."""
        enough = np.zeros(len(whole), dtype=bool)
        for bound in (self.certain_from, self.positive_from):
            if bound is not None:
                enough |= whole >= bound
        if self.negative_to is not None:
            enough |= whole <= self.negative_to
        return enough

    def to_json(self) -> dict[str, Any]:
        """The document of early_exit.json."""
        return asdict(self)


def logits_of_margin(margin: Floats, positive: int) -> Floats:
    """(N, 2) logits of margins (N,), as a bag's: minus and plus half."""
    return np.stack([margin, -margin] if positive == 0 else [-margin, margin], axis=1) / 2


def fit_early_exit(
    policy: Policy, logits: Logits, *, max_changed: float, seed: int
) -> EarlyExit | None:
    """From VAL_CALIB logits; None where the model looks at one view.

    The share of changed decisions only falls as the distance grows, so that the least distance
    whose bound holds for all larger ones keeps its level (Bates et al., "Distribution-free,
    risk-controlling prediction sets", 2021, thm 1).
    """
    if logits.full_image_margin is None or logits.views is None:
        return None
    negative_to, positive_from = decision_edges(policy)
    bound = logits.views.lower_bound
    certain = None if bound is None or positive_from is None else positive_from - bound
    rows = one_per_group(logits.groups, seed)
    whole = logits.full_image_margin[rows].astype(np.float64)
    changed = decisions_alone(policy, whole) != policy.decide(logits.logits[rows])
    distance = _distance(whole, negative_to, positive_from)
    if certain is not None:
        distance = np.where(whole >= certain, -np.inf, distance)
    least, n_changed = _least_distance(distance, changed, max_changed)
    fitted = least is not None
    return EarlyExit(
        n_views=logits.views.count,
        certain_from=certain,
        positive_from=(
            positive_from + least if least is not None and positive_from is not None else None
        ),
        negative_to=negative_to - least if least is not None and negative_to is not None else None,
        max_changed=max_changed,
        delta=DELTA,
        n_images=len(rows),
        n_changed=n_changed,
        changed_upper_bound=(
            float(clopper_pearson_upper(n_changed, len(rows), DELTA)) if fitted else 0.0
        ),
    )


def write_early_exit(directory: Path, early_exit: EarlyExit | None) -> None:
    """Into a policy's staging directory, where there is one."""
    if early_exit is not None:
        write_json(directory / DOCUMENT, early_exit.to_json())


def read_early_exit(directory: Path) -> EarlyExit | None:
    """Of a verified Policy artifact or bundle; None where it holds none. Raises ArtifactError for a
    damaged one.
    """
    file = directory / DOCUMENT
    if not file.is_file():
        return None
    try:
        return EarlyExit(**json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ArtifactError(
            f"{file}: not an early exit of this version ({one_line(error)}); fit it again"
        ) from error


def decisions_alone(policy: Policy, whole: Floats) -> np.ndarray:
    """(N,) what the policy says from whole images' margins (N,)."""
    return policy.decide(logits_of_margin(whole, policy.positive))


def decision_edges(policy: Policy) -> tuple[float | None, float | None]:
    """Margins up to which the policy always says none, and from which it always says roadwork; to
    0.01.
    """
    said = decisions_alone(policy, _GRID)
    no, yes = (
        np.logical_and.accumulate(said == NEGATIVE),
        np.logical_and.accumulate(said[::-1] == POSITIVE)[::-1],
    )
    return (
        float(_GRID[np.flatnonzero(no)[-1]]) if no.any() else None,
        float(_GRID[np.flatnonzero(yes)[0]]) if yes.any() else None,
    )


def _distance(whole: Floats, negative_to: float | None, positive_from: float | None) -> Floats:
    """(N,) how far beyond the edge of its decision each margin lies; -inf where there is no
    decision to be sure of.
    """
    distance = np.full(len(whole), -np.inf)
    if negative_to is not None:
        distance = np.where(whole <= negative_to, negative_to - whole, distance)
    if positive_from is not None:
        distance = np.where(whole >= positive_from, whole - positive_from, distance)
    return distance


def _least_distance(
    distance: Floats, changed: Bools, max_changed: float
) -> tuple[float | None, int]:
    """The least distance that keeps the bound, and how many tested images it changes; None where
    none does.
    """
    allowed = np.flatnonzero(
        clopper_pearson_upper(np.arange(len(distance) + 1), len(distance), DELTA) <= max_changed
    )
    if not len(allowed):
        return None, 0
    wrong = np.sort(distance[changed & (distance >= 0)])[::-1]
    n_allowed = int(allowed[-1])
    beyond = wrong[n_allowed] if len(wrong) > n_allowed else -np.inf
    kept = distance[(distance >= 0) & (distance > beyond)]
    return (float(kept.min()), int((wrong > beyond).sum())) if len(kept) else (None, 0)

"""Which scale and offset of the logits make a consumer that rounds P(positive) at 0.5 decide as the
policy?

Temperature, Platt and vector scaling are linear in logits: they go into the weights with the
threshold, and the probability they give is the calibrated one, moved so that the threshold lies at
0.5. Of any other calibrator of two classes only the decision goes in, as a threshold on the model's
own log-odds; where even that is impossible, nothing. An abstention is the policy's decision there,
since such a consumer cannot abstain.
"""

from dataclasses import dataclass

import numpy as np

from components.shared.policies.policy import Policy
from components.shared.stats.metrics import Floats

# Log-odds beyond which no trained model's output lies, and the grid on which a decision must change
# at most once.
_RANGE, _N_GRID = 60.0, 12_001
# Below this a scale cannot be undone in float32.
_LEAST_SCALE = 1e-3


@dataclass(frozen=True)
class LogitAffine:
    """stored logits = scale * logits + offset, each (C,) float64. The decision is "stored margin >
    0" if `decides`.

    reason: why the calibrator, or even the decision, is not in it; empty where both are.
    """

    scale: Floats
    offset: Floats
    decides: bool
    reason: str

    def undone(self, stored: Floats) -> Floats:
        """(N, C) logits before folding."""
        return np.asarray((stored - self.offset) / self.scale)


def logit_affine_of(policy: Policy) -> LogitAffine:
    """The fold of a policy's calibrator and threshold."""
    count = len(policy.class_names)
    calibrator = policy.calibrator
    affine = (np.ones(count), np.zeros(count)) if calibrator is None else calibrator.affine(count)
    if affine is not None and np.abs(affine[0]).min() >= _LEAST_SCALE:
        return LogitAffine(
            affine[0], _lowered(affine[1], policy.positive, policy.threshold_margin), True, ""
        )
    name = "" if calibrator is None else calibrator.NAME
    unfolded = np.ones(count), np.zeros(count)
    if count > 2:
        return LogitAffine(
            *unfolded,
            False,
            f"the {name} calibrator of {count} classes is not linear in the logits",
        )
    threshold = _raw_threshold(policy)
    if threshold is None:
        return LogitAffine(
            *unfolded,
            False,
            f"the {name} calibrator does not rise with the logits around the threshold",
        )
    reason = (
        f"the {name} calibrator is not linear in the logits; only the decision is in the weights"
    )
    return LogitAffine(unfolded[0], _lowered(unfolded[1], policy.positive, threshold), True, reason)


def _lowered(offset: Floats, positive: int, by: float) -> Floats:
    out = np.array(offset, dtype=np.float64)
    out[positive] -= by
    return out


def _raw_threshold(policy: Policy) -> float | None:
    """The log-odds, before calibration, above which a two-class policy says positive; None where
    there is not one.
    """

    def says_positive(margin: Floats) -> np.ndarray:
        logits = np.zeros((len(margin), 2))
        logits[:, policy.positive] = margin
        return policy.decision(logits)

    grid = np.linspace(-_RANGE, _RANGE, _N_GRID)
    said = says_positive(grid)
    changes = np.flatnonzero(np.diff(said.astype(np.int8)))
    if len(changes) == 0:
        return -_RANGE if said[0] else _RANGE
    if len(changes) > 1 or said[0]:
        return None
    low, high = grid[changes[0]], grid[changes[0] + 1]
    while low < (middle := (low + high) / 2) < high:
        low, high = (low, middle) if says_positive(np.array([middle]))[0] else (middle, high)
    return float(low)

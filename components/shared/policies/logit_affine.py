"""The affine map of logits that puts a policy's calibrator and threshold into a linear head.

A consumer that rounds P(positive) at 0.5 then decides as the policy; of a multiclass task, one that
takes the largest logit, and there is no threshold. Temperature, Platt and vector
scaling are linear in logits: they go into the weights with the threshold, and the stored
probability is the calibrated one, moved so that the threshold lies at 0.5. Of any other calibrator
of two classes only the decision goes in, as a threshold on the model's own log-odds; where even
that is impossible, nothing. An abstention becomes the policy's decision, since such a consumer
cannot abstain.
"""

from dataclasses import dataclass

import numpy as np

from components.shared.policies.policy import Policy
from components.shared.stats.metrics import Bools, Floats

# Log-odds beyond which no model's output lies, and the grid on which a decision must change at most
# once: fine where outputs usually are, geometric beyond.
_RANGE = 1e5
_GRID = np.r_[
    -np.geomspace(_RANGE, 60, 2000, endpoint=False),
    np.linspace(-60, 60, 12_001),
    np.geomspace(_RANGE, 60, 2000, endpoint=False)[::-1],
]
# The threshold of a policy that always decides alike. Stored logits are float32 and contain it: at
# 1e3 they keep 3e-5 of a logit, at the end of the grid not even a hundredth.
_NEVER_REACHED = 1e3
# A smaller scale cannot be inverted in float32.
_LEAST_SCALE = 1e-3


@dataclass(frozen=True)
class LogitAffine:
    """The map stored logits = scale * logits + offset, each (C,) float64.

    decides: whether "stored margin > 0", or the largest stored logit of a multiclass task, is the
    policy's decision. reason: why the calibrator, or
    even the decision, is not in the map; empty where both are.
    """

    scale: Floats
    offset: Floats
    decides: bool
    reason: str

    def inverse(self, stored: Floats) -> Floats:
        """Return the logits (N, C) of which these are the stored ones."""
        return np.asarray((stored - self.offset) / self.scale)


def logit_affine_of(policy: Policy) -> LogitAffine:
    """Return the map that holds a policy's calibrator and threshold, as far as they are affine."""
    n_classes, calibrator = len(policy.class_names), policy.calibrator
    positive = policy.outcomes.positive
    identity = np.ones(n_classes), np.zeros(n_classes)
    affine = identity if calibrator is None else calibrator.affine(n_classes)
    if affine is not None and np.abs(affine[0]).min() >= _LEAST_SCALE:
        scale, offset = affine
        lowered = _lowered(offset, positive, policy.threshold_margin)
        return LogitAffine(scale, lowered, decides=True, reason="")

    name = "" if calibrator is None else calibrator.NAME
    scale, offset = identity
    obstacle = (
        f"the {name} calibrator is not linear in the logits"
        if affine is None
        else f"the {name} calibrator's scale {affine[0].min():.2g} cannot be undone in float32"
    )
    if n_classes > 2 or positive is None:
        reason = f"with {n_classes} classes {obstacle}"
        return LogitAffine(scale, offset, decides=False, reason=reason)

    threshold = _uncalibrated_threshold(policy)
    if threshold is None:
        reason = f"the {name} calibrator does not rise with the logits around the threshold"
        return LogitAffine(scale, offset, decides=False, reason=reason)

    lowered = _lowered(offset, positive, threshold)

    return LogitAffine(
        scale, lowered, decides=True, reason=f"{obstacle}; only the decision is in the weights"
    )


def _lowered(offset: Floats, positive: int | None, by: float) -> Floats:
    """Return the offset with that of the positive class lowered, where there is one."""
    out = np.array(offset, dtype=np.float64)
    if positive is not None:
        out[positive] -= by
    return out


def _uncalibrated_threshold(policy: Policy) -> float | None:
    """Return the log-odds, before calibration, above which a two-class policy says positive.

    It is exact to the last bit; None where the decision changes more than once, or downwards.
    """

    def is_positive(margin: Floats) -> Bools:
        logits = np.zeros((len(margin), 2))
        logits[:, policy.outcomes.positive_index] = margin
        return np.asarray(policy.decision(logits) == 1)

    decided = is_positive(_GRID)
    changes = np.flatnonzero(np.diff(decided.astype(np.int8)))
    if len(changes) == 0:
        return -_NEVER_REACHED if decided[0] else _NEVER_REACHED
    if len(changes) > 1 or decided[0]:
        return None

    # Bisection down to two adjacent floats.
    low, high = _GRID[changes[0]], _GRID[changes[0] + 1]
    while low < (middle := (low + high) / 2) < high:
        if is_positive(np.array([middle]))[0]:
            high = middle
        else:
            low = middle

    return float(low)

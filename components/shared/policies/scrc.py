"""Selective conformal risk control jointly with a test point (SCRC-T), for batches of images.

Xu, Guo, Wei, "Selective conformal risk control", arXiv 2512.12844: SCRC-T selects symmetrically
over calibration samples and test point, which keeps the selected ones exchangeable, and applies
conformal risk control (Angelopoulos et al., arXiv 2208.02814) to them; it is computed anew for
every test point. The inductive form, which a bundle can carry, is `certify`.

Own code, because no package has it: MAPIE's risk control has no selection.
"""

import math
from dataclasses import dataclass

import numpy as np

from components.shared.stats.metrics import Floats, Integers

# Comparisons of probabilities that are equal on paper.
_TOLERANCE = 1e-12


@dataclass(frozen=True)
class JointResult:
    """Result of SCRC-T for one test point.

    threshold: least confidence of the accepted. n_selected: selected calibration samples. accepted:
    whether the test point is selected. lambda_set: the level of the sets, None where infeasible.
    prediction_set: class indices, empty where the test point is rejected.
    """

    threshold: float
    n_selected: int
    accepted: bool
    lambda_set: float | None
    prediction_set: tuple[int, ...]


def scrc_joint(
    confidence: Floats,
    probabilities: Floats,
    labels: Integers,
    test_confidence: float,
    test_probabilities: Floats,
    *,
    coverage: float,
    alpha: float,
) -> JointResult:
    """Select the most confident samples together with the test point, and size its prediction set.

    The ceil(coverage * (n + 1)) most confident of calibration samples and test point are accepted.
    Conformal risk control then bounds the miscoverage of {k: P_k >= 1 - lambda} over the m selected
    calibration samples: (misses + 1) / (m + 1) <= alpha (theorem 2).

    Args:
        confidence: (n,) float64, of calibration samples.
        probabilities: (n, C) float64, of calibration samples.
        labels: (n,) int64, of calibration samples.
        test_confidence: confidence of the test point.
        test_probabilities: (C,) float64, of the test point.
        coverage: fraction to accept, in (0, 1).
        alpha: largest expected miscoverage among the accepted, in (0, 1).
    """
    joint = np.append(confidence, test_confidence)
    n_accepted = math.ceil(coverage * len(joint) - _TOLERANCE)
    threshold = float(np.sort(joint)[::-1][n_accepted - 1])
    selected = confidence >= threshold - _TOLERANCE
    accepted = bool(test_confidence >= threshold - _TOLERANCE)

    scores = np.sort(1 - probabilities[np.arange(len(labels)), labels][selected])
    lambda_set = _least_lambda(scores, alpha)
    members: tuple[int, ...] = ()
    if accepted and lambda_set is not None:
        members = tuple(np.flatnonzero(test_probabilities >= 1 - lambda_set - _TOLERANCE).tolist())

    return JointResult(threshold, int(selected.sum()), accepted, lambda_set, members)


def _least_lambda(scores: Floats, alpha: float) -> float | None:
    """Return the smallest lambda that covers enough of the scores (m,), ascending; None: none."""
    # The largest k with (k + 1) / (m + 1) <= alpha.
    allowed_misses = math.floor(alpha * (len(scores) + 1) + _TOLERANCE) - 1
    if allowed_misses < 0:
        return None
    if allowed_misses >= len(scores):
        return 0.0
    return float(scores[len(scores) - 1 - allowed_misses])

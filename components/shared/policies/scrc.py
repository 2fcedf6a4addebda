"""What do conformal risk control and selective conformal risk control certify in expectation, and
jointly with a test point?

Angelopoulos et al., "Conformal risk control" (CRC), arXiv 2208.02814; Xu, Guo, Wei, "Selective
conformal risk control", arXiv 2512.12844: SCRC-T selects symmetrically over calibration and test
point, which keeps the selected ones exchangeable, and applies CRC to them; it is computed anew for
every test point. SCRC-I uses the calibration samples alone, with a coverage bound
(Dvoretzky-Kiefer-Wolfowitz) and a risk bound that hold with probability 1 - delta.
"""

import math
from dataclasses import dataclass

import numpy as np

from components.shared.stats.bounds import binomial_p_value, dkw_one_sided
from components.shared.stats.metrics import Bools, Floats, Integers

# Comparisons of probabilities that are equal on paper.
_TOLERANCE = 1e-12


def crc_threshold(
    positive_scores: Floats, alpha: float, grid: Floats | None = None
) -> float | None:
    """Largest threshold t such that "positive iff score >= t" misses at most alpha in expectation;
    None: infeasible.

    positive_scores: (n,) scores of positive samples. CRC with loss 1{score < t}: (misses + 1) / (n
    + 1) <= alpha. t is the largest attained score or, where given, grid value that keeps it.
    """
    allowed = _allowed_misses(len(positive_scores), alpha)
    if allowed < 0:
        return None
    ordered = np.sort(positive_scores)
    limit = ordered[allowed] if allowed < len(ordered) else np.inf
    choices = ordered if grid is None else np.sort(grid)
    feasible = choices[choices <= limit + _TOLERANCE]
    return float(feasible[-1]) if len(feasible) else None


@dataclass(frozen=True)
class JointResult:
    """SCRC-T for one test point. prediction_set: class indices, empty where rejected; lambda_set
    None: infeasible.
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
    """SCRC-T: accept the ceil(coverage * (n + 1)) most confident of calibration and test point
    together, then CRC on the miscoverage of {k: P_k >= 1 - lambda} over the m selected calibration
    samples: (misses + 1) / (m + 1) <= alpha.

    confidence (n,), probabilities (n, C), labels (n,) int64; test_probabilities (C,).
    """
    joint = np.append(confidence, test_confidence)
    n_accepted = math.ceil(coverage * len(joint) - _TOLERANCE)
    threshold = float(np.sort(joint)[::-1][n_accepted - 1])
    selected = confidence >= threshold - _TOLERANCE
    accepted = bool(test_confidence >= threshold - _TOLERANCE)
    scores = np.sort(1 - probabilities[np.arange(len(labels)), labels][selected])
    allowed = _allowed_misses(len(scores), alpha)
    lambda_set = (
        None
        if allowed < 0
        else float(scores[len(scores) - 1 - allowed])
        if allowed < len(scores)
        else 0.0
    )
    members: tuple[int, ...] = ()
    if accepted and lambda_set is not None:
        members = tuple(np.flatnonzero(test_probabilities >= 1 - lambda_set - _TOLERANCE).tolist())
    return JointResult(threshold, int(selected.sum()), accepted, lambda_set, members)


@dataclass(frozen=True)
class InductiveResult:
    """SCRC-I: threshold on confidence, empirical coverage and its lower bound, empirical risk and
    its p-value.
    """

    threshold: float
    coverage: float
    coverage_lower_bound: float
    risk: float
    p_value: float


def scrc_inductive(
    confidence: Floats,
    error: Bools,
    grid: Floats,
    *,
    min_coverage: float,
    alpha: float,
    delta: float,
) -> InductiveResult | None:
    """SCRC-I over a fixed grid: coverage by DKW at delta / 2, risk by exact binomials with
    Bonferroni at delta / 2.

    The largest coverage among the thresholds whose coverage bound reaches `min_coverage`; None:
    infeasible. A reference for `certify`, which needs no correction for the size of the grid.
    """
    margin = dkw_one_sided(len(confidence), delta / 2)
    for threshold in np.sort(grid):
        accepted = confidence >= threshold
        n_accepted, n_errors = int(accepted.sum()), int((accepted & error).sum())
        lower = n_accepted / len(confidence) - margin
        p_value = float(binomial_p_value(n_errors, n_accepted, alpha))
        if lower >= min_coverage and p_value <= delta / 2 / len(grid):
            coverage = n_accepted / len(confidence)
            return InductiveResult(
                float(threshold), coverage, lower, n_errors / n_accepted, p_value
            )
    return None


def _allowed_misses(count: int, alpha: float) -> int:
    """The largest k with (k + 1) / (count + 1) <= alpha; negative where there is none."""
    return math.floor(alpha * (count + 1) + _TOLERANCE) - 1

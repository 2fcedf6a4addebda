"""Conformal risk control and the inductive SCRC of the papers, independent oracles of the tests.

Angelopoulos et al., "Conformal risk control" (CRC), arXiv 2208.02814; Xu, Guo, Wei, "Selective
conformal risk control", arXiv 2512.12844.
"""

import math
from typing import NamedTuple

import numpy as np

from components.shared.stats.bounds import binomial_p_value, dkw_one_sided
from components.shared.stats.metrics import Bools, Floats

_TOLERANCE = 1e-12


def crc_threshold(
    positive_scores: Floats, alpha: float, grid: Floats | None = None
) -> float | None:
    """Return the largest t such that "positive iff score >= t" misses at most alpha in expectation.

    positive_scores: (n,) scores of positive samples. CRC with loss 1{score < t}: (misses + 1) /
    (n + 1) <= alpha. t is the largest attained score or, where given, grid value that keeps it;
    None: infeasible.
    """
    allowed = math.floor(alpha * (len(positive_scores) + 1) + _TOLERANCE) - 1
    if allowed < 0:
        return None
    ordered = np.sort(positive_scores)
    limit = ordered[allowed] if allowed < len(ordered) else np.inf
    choices = ordered if grid is None else np.sort(grid)
    feasible = choices[choices <= limit + _TOLERANCE]
    return float(feasible[-1]) if len(feasible) else None


class InductiveResult(NamedTuple):
    """SCRC-I: threshold, empirical coverage and its lower bound, empirical risk and its p-value."""

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
    """Certify a threshold of a fixed grid: coverage by DKW, risk by Bonferroni, delta / 2 each.

    The largest coverage among the thresholds whose coverage bound reaches `min_coverage`; None:
    infeasible.
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

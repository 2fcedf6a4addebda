"""Which of many thresholds are certified together? Control of the family-wise error: one wrong
certificate at most with probability delta (Angelopoulos, Bates et al., "Learn then test", arXiv
2110.01052).

Each procedure takes p-values (J,) in testing order and returns (J,) bool, True where certified.
"""

import numpy as np

from components.shared.stats.metrics import Bools, Floats

METHODS = ("fixed_sequence", "holm", "bonferroni")


def certified(p_values: Floats, delta: float, method: str) -> Bools:
    """By one of METHODS."""
    if method == "fixed_sequence":
        return fixed_sequence(p_values, delta)
    return holm(p_values, delta) if method == "holm" else bonferroni(p_values, delta)


def fixed_sequence(p_values: Floats, delta: float) -> Bools:
    """Each at the full delta, in an order fixed without these samples, until the first failure."""
    return np.asarray(np.logical_and.accumulate(p_values <= delta))


def bonferroni(p_values: Floats, delta: float) -> Bools:
    """Each at delta / J, in any order."""
    return np.asarray(p_values <= delta / max(len(p_values), 1))


def holm(p_values: Floats, delta: float) -> Bools:
    """Smallest first, at delta / J, delta / (J - 1), ..., until the first failure (Holm, 1979)."""
    order = np.argsort(p_values, kind="stable")
    passed = p_values[order] <= delta / np.arange(len(p_values), 0, -1)
    out = np.zeros(len(p_values), dtype=bool)
    out[order] = np.logical_and.accumulate(passed)
    return out

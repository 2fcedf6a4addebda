"""Procedures that certify several thresholds at once and control the family-wise error.

With probability at least 1 - delta no certificate is wrong (Angelopoulos, Bates et al., "Learn then
test", arXiv 2110.01052). Each procedure takes p-values (J,) in testing order and the level delta,
and returns (J,) bool, True where certified. `statsmodels` has the last two, but no fixed sequence.
"""

from collections.abc import Callable

import numpy as np

from components.shared.stats.metrics import Bools, Floats


def fixed_sequence(p_values: Floats, delta: float) -> Bools:
    """Test each at the full delta, in an order fixed beforehand, until the first failure."""
    return np.asarray(np.logical_and.accumulate(p_values <= delta))


def holm(p_values: Floats, delta: float) -> Bools:
    """Test the smallest first, at delta / J, delta / (J - 1), ..., until a failure (Holm, 1979)."""
    order = np.argsort(p_values, kind="stable")
    passed = p_values[order] <= delta / np.arange(len(p_values), 0, -1)
    out = np.zeros(len(p_values), dtype=bool)
    out[order] = np.logical_and.accumulate(passed)
    return out


def bonferroni(p_values: Floats, delta: float) -> Bools:
    """Test each at delta / J, in any order."""
    return np.asarray(p_values <= delta / max(len(p_values), 1))


METHODS: dict[str, Callable[[Floats, float], Bools]] = {
    "fixed_sequence": fixed_sequence,
    "holm": holm,
    "bonferroni": bonferroni,
}

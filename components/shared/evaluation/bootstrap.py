"""How sure is a metric, given that frames of one place are alike? Intervals by resampling groups."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import numpy.typing as npt

from components.shared.evaluation.metrics import Floats

LEVEL = 0.95


def group_weights(groups: tuple[str, ...], n_replicates: int, seed: int) -> Iterator[Floats]:
    """Multiplicities (N,) of the samples in each bootstrap replicate: whole groups are drawn with replacement."""
    _, member = np.unique(np.array(groups), return_inverse=True)
    n_groups = int(member.max()) + 1
    rng = np.random.default_rng(seed)
    uniform = np.full(n_groups, 1 / n_groups)
    for _ in range(n_replicates):
        yield rng.multinomial(n_groups, uniform).astype(np.float64)[member]


def percentile_interval(values: npt.ArrayLike) -> tuple[float, float] | None:
    """Central 95 % of the replicates' values that exist; None where fewer than half do."""
    array = np.asarray(values, dtype=np.float64)
    finite = array[np.isfinite(array)]
    if len(finite) < len(array) / 2 or not len(finite):
        return None
    low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def intervals(
    functions: Mapping[str, Callable[[Floats], Floats | float | None]],
    groups: tuple[str, ...],
    n_replicates: int,
    seed: int,
) -> dict[str, tuple[float, float] | None]:
    """95 % percentile intervals of several metrics, each a function of the sample weights, on the same replicates."""
    values: dict[str, list[float]] = {name: [] for name in functions}
    for weights in group_weights(groups, n_replicates, seed):
        for name, function in functions.items():
            value = function(weights)
            values[name].append(float("nan") if value is None else float(value))
    return {name: percentile_interval(replicates) for name, replicates in values.items()}

"""Speed of the exact sweep over 200,000 scores against a scikit-learn grid of 200 thresholds.

The peer is the usual recipe: `matthews_corrcoef(truth, probability >= t)` for t in a grid of 200
quantiles of the scores, the best kept. It looks at 200 rules where the sweep looks at all 200,001,
so ours must find at least its MCC.
"""

import numpy as np
from sklearn.metrics import matthews_corrcoef

from components.shared.policies.fitting.sweep import best_threshold, sweep
from components.shared.stats.metrics import Bools, Floats
from tests.bench.measure import Result, interleaved

_N_SCORES, _N_GRID = 200_000, 200


def run() -> list[Result]:
    """One result; both optima are compared first."""
    rng = np.random.default_rng(0)
    truth = rng.random(_N_SCORES) < 0.1
    margin = rng.normal(np.where(truth, 1.0, -1.0), 1.5)
    best = best_threshold(sweep(truth, margin, "mcc"))
    assert abs(best.objective - matthews_corrcoef(truth, margin > best.threshold)) < 1e-9
    assert best.objective >= _grid(truth, margin) - 1e-12
    seconds = interleaved(
        lambda: best_threshold(sweep(truth, margin, "mcc")),
        lambda: _grid(truth, margin),
        rounds=3,
        ours_per_round=5,
    )
    peer = "sklearn.metrics.matthews_corrcoef over a grid of 200 quantiles"
    return [Result("exact threshold sweep, 200k scores", peer, *seconds, goal=150)]


def _grid(truth: Bools, scores: Floats) -> float:
    return max(
        float(matthews_corrcoef(truth, scores >= t))
        for t in np.quantile(scores, np.linspace(0, 1, _N_GRID + 2)[1:-1])
    )

"""Speed of a bootstrap replicate of AUGRC against fd-shifts, which defines the metric.

The peer is `RiskCoverageStatsMixin.evaluate_ci` of fd-shifts (c4467ae; not on PyPI, and numpy < 2
only), restated: for each replicate a resample, a sort, a pass in Python over all samples and a
trapezoid.
"""

from functools import partial

import numpy as np

from components.shared.stats.bootstrap import membership, replicates
from components.shared.stats.metrics import Bools, Floats
from components.shared.stats.risk_coverage import augrc
from tests.bench.measure import Result, interleaved

_N_SAMPLES, _N_OURS, _N_PEER = 1000, 10_000, 200


def run() -> list[Result]:
    """Seconds of one replicate; the intervals of both must agree within 1 %."""
    rng = np.random.default_rng(0)
    confidence = rng.random(_N_SAMPLES)
    error = rng.random(_N_SAMPLES) < 0.4 * (1 - confidence)
    member = membership(None, _N_SAMPLES)

    def ours() -> Floats:
        return replicates({"x": partial(augrc, confidence, error)}, member, _N_OURS, 0)["x"]

    np.testing.assert_allclose(
        np.percentile(ours(), [2.5, 97.5]),
        np.percentile(_peer(confidence, error, 4000), [2.5, 97.5]),
        rtol=0.01,
    )
    ours_seconds, peer_seconds = interleaved(
        ours, lambda: _peer(confidence, error, _N_PEER), rounds=3, ours_per_round=2
    )
    peer = "fd-shifts' evaluate_ci, restated"
    note = f"one replicate of {_N_SAMPLES} samples; intervals agree within 1 %"
    return [
        Result(
            "AUGRC bootstrap",
            peer,
            ours_seconds / _N_OURS,
            peer_seconds / _N_PEER,
            goal=30,
            note=note,
        )
    ]


def _peer(confidence: Floats, error: Bools, n_replicates: int) -> Floats:
    rng = np.random.default_rng(1)
    values = np.empty(n_replicates)
    for replicate in range(n_replicates):
        rows = rng.choice(np.arange(len(confidence)), size=len(confidence), replace=True)
        values[replicate] = _area(confidence[rows], error[rows].astype(np.int64))
    return values


def _area(confidence: Floats, residuals: np.ndarray) -> float:
    order = np.argsort(confidence)
    residuals, confidence = residuals[order], confidence[order]
    n, cov, error_sum = len(residuals), len(residuals), sum(residuals)
    coverages, risks = [1.0], [error_sum / n]
    for i in range(n - 1):
        cov -= 1
        error_sum -= residuals[i]
        if confidence[i] != confidence[i + 1]:
            coverages.append(cov / n)
            risks.append(error_sum / n)
    return float(-np.trapezoid([*risks, 0.0], [*coverages, 0.0]))

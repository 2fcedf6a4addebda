"""Time to certify a threshold on 100,000 calibration samples against MAPIE's controller.

Both test 200 thresholds in a fixed sequence for a precision of at least 0.95 among the accepted
with confidence 0.9.
"""

import warnings

import numpy as np

from components.shared.policies.certify import Certificate, Samples, certify
from tests.bench.measure import Result, interleaved

_N_SAMPLES, _N_TUNING, _ALPHA, _DELTA = 100_000, 30_000, 0.05, 0.1


def run() -> list[Result]:
    """One result; both must find a threshold with a risk of at most alpha on these samples."""
    from mapie.risk_control import BinaryClassificationController

    rng = np.random.default_rng(0)
    confidence = rng.random(_N_SAMPLES)
    error = rng.random(_N_SAMPLES) < 0.25 * (1 - confidence)
    every = np.ones(_N_SAMPLES, dtype=bool)
    tuning = Samples(confidence[:_N_TUNING], error[:_N_TUNING], every[:_N_TUNING])
    samples = Samples(confidence, error, every)

    def ours() -> Certificate | None:
        return certify(tuning, samples, alpha=_ALPHA, delta=_DELTA, coverage_delta=_DELTA)

    def peer() -> float:
        controller = BinaryClassificationController(
            lambda x: np.column_stack([1 - x[:, 0], x[:, 0]]),
            "precision",
            1 - _ALPHA,
            confidence_level=1 - _DELTA,
            list_predict_params=np.linspace(0, 0.95, 200),
            fwer_method="fixed_sequence",
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            controller.calibrate(confidence[:, None], (~error).astype(int))
        return float(np.min(controller.valid_predict_params))

    found = ours()
    assert found is not None
    assert found.risk <= _ALPHA
    assert abs(found.threshold - peer()) < 0.02
    seconds = interleaved(ours, peer, rounds=3, ours_per_round=3)
    assert seconds[0] < 1.0
    peer_name = "mapie.risk_control.BinaryClassificationController"
    return [Result("certified threshold, 100k samples", peer_name, *seconds, goal=1)]

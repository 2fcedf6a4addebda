"""Risk-coverage metrics against fd-shifts' values, closed forms, and order of ties."""

import numpy as np
import pytest

from components.shared.stats import risk_coverage as rc
from components.shared.stats.metrics import Bools, Floats

CONFIDENCE = np.array([0.95, 0.90, 0.85, 0.80, 0.75, 0.70, 0.65, 0.60, 0.55, 0.51])
ERROR = np.array([0, 0, 1, 0, 0, 0, 1, 0, 1, 1], dtype=bool)
TRUTH = np.array([1, 1, 0, 0, 1, 1, 0, 0, 1, 0], dtype=bool)
TIED_CONFIDENCE = np.array([0.9, 0.9, 0.8, 0.8, 0.6])
TIED_ERROR = np.array([0, 1, 0, 1, 1], dtype=bool)


def _random(seed: int, count: int = 300) -> tuple[Floats, Bools]:
    rng = np.random.default_rng(seed)
    confidence = rng.integers(0, 40, count) / 40
    return confidence, rng.random(count) < 0.5 * (1 - confidence)


def test_values_of_fd_shifts() -> None:
    assert rc.aurc(CONFIDENCE, ERROR) == pytest.approx(0.20190476190476192, abs=1e-15)
    assert rc.e_aurc(CONFIDENCE, ERROR) == pytest.approx(0.10840013616435612, abs=1e-15)
    assert rc.aurc_optimal(ERROR.mean()) == pytest.approx(0.0935046257404058, abs=1e-15)
    assert rc.augrc(CONFIDENCE, ERROR) == pytest.approx(0.13, abs=1e-15)
    assert rc.e_augrc(CONFIDENCE, ERROR) == pytest.approx(0.05, abs=1e-15)
    assert rc.augrc_optimal(ERROR.mean()) == pytest.approx(0.08, abs=1e-15)
    assert rc.aurc_balanced(CONFIDENCE, ERROR, TRUTH) == pytest.approx(0.2383333333, abs=5e-11)
    assert rc.augrc_balanced(CONFIDENCE, ERROR, TRUTH) == pytest.approx(0.13, abs=1e-15)
    assert rc.failure_auroc(CONFIDENCE, ERROR) == pytest.approx(0.7916667, abs=5e-8)


def test_ties_in_any_order() -> None:
    for order in ([0, 1, 2, 3, 4], [1, 0, 3, 2, 4], [4, 3, 1, 2, 0]):
        assert rc.aurc(TIED_CONFIDENCE[order], TIED_ERROR[order]) == pytest.approx(0.51, abs=1e-15)
        assert rc.augrc(TIED_CONFIDENCE[order], TIED_ERROR[order]) == pytest.approx(0.26, abs=1e-15)


def test_working_points() -> None:
    assert rc.coverage_at_risk(CONFIDENCE, ERROR, 0.25) == 0.8
    curve = rc.risk_coverage_curve(CONFIDENCE, ERROR)
    assert curve.thresholds[curve.coverage == 0.8] == 0.6
    assert rc.risk_at_coverage(CONFIDENCE, ERROR, 0.7) == pytest.approx(2 / 7)
    assert rc.coverage_at_risk(CONFIDENCE, ~np.zeros(10, bool), 0.5) is None
    assert rc.coverage_at_risk(CONFIDENCE, ERROR, 0.0) == 0.2


@pytest.mark.parametrize("seed", range(5))
def test_augrc_follows_from_the_failure_auroc(seed: int) -> None:
    """Traub et al. (2024), eq. 6: AUGRC = (1 - AUROC_f) acc (1 - acc) + (1 - acc)^2 / 2."""
    confidence, error = _random(seed)
    accuracy = 1 - error.mean()
    closed = (1 - rc.failure_auroc(confidence, error)) * accuracy * (1 - accuracy) + (
        1 - accuracy
    ) ** 2 / 2
    assert rc.augrc(confidence, error) == pytest.approx(closed, abs=1e-12)


def test_a_perfect_ranking_has_almost_no_excess() -> None:
    error = np.arange(5000) >= 4000
    assert rc.e_augrc(-np.arange(5000.0), error) == pytest.approx(0, abs=1e-12)
    assert rc.e_aurc(-np.arange(5000.0), error) == pytest.approx(0, abs=1e-4)


def test_weights_mean_repeated_samples() -> None:
    confidence, error = _random(1)
    weights = np.random.default_rng(4).integers(0, 3, (8, len(error)))
    functions = [
        rc.aurc,
        rc.augrc,
        rc.e_aurc,
        lambda c, e, w=None: rc.risk_at_coverage(c, e, 0.6, w),
    ]
    functions.append(lambda c, e, w=None: rc.coverage_at_risk(c, e, 0.2, w))
    functions.append(lambda c, e, w=None: rc.aurc_balanced(c, e, c > 0.4, w))
    functions.append(lambda c, e, w=None: rc.augrc_balanced(c, e, c > 0.4, w))
    for function in functions:
        batch = function(confidence, error, weights.astype(float))
        rows = [np.repeat(np.arange(len(error)), w) for w in weights]
        np.testing.assert_allclose(
            batch, [function(confidence[r], error[r]) for r in rows], atol=1e-12
        )

"""Conformal risk control and both forms of SCRC against worked examples."""

import numpy as np
import pytest

from components.shared.policies.certify import Samples, certify
from components.shared.policies.scrc import scrc_joint
from tests.components.shared.policies.scrc_oracles import crc_threshold, scrc_inductive

POSITIVES = np.array(
    [
        0.97,
        0.95,
        0.93,
        0.90,
        0.88,
        0.86,
        0.84,
        0.80,
        0.78,
        0.75,
        0.70,
        0.66,
        0.61,
        0.55,
        0.52,
        0.47,
        0.41,
        0.33,
        0.21,
        0.08,
    ]
)
CONFIDENCE = np.array(
    [
        0.99,
        0.97,
        0.96,
        0.94,
        0.92,
        0.90,
        0.88,
        0.86,
        0.83,
        0.80,
        0.77,
        0.74,
        0.71,
        0.68,
        0.65,
        0.62,
        0.59,
        0.56,
        0.53,
        0.51,
    ]
)
P1 = np.array(
    [
        0.99,
        0.03,
        0.96,
        0.06,
        0.92,
        0.10,
        0.12,
        0.86,
        0.17,
        0.80,
        0.77,
        0.26,
        0.71,
        0.32,
        0.65,
        0.38,
        0.59,
        0.44,
        0.53,
        0.49,
    ]
)
LABELS = np.array([1, 0, 1, 0, 1, 0, 0, 1, 0, 1, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1])
PROBABILITIES = np.column_stack([1 - P1, P1])


def test_crc_on_a_grid_and_continuous() -> None:
    grid = np.arange(21) / 20
    expected = {0.10: 0.20, 0.15: 0.30, 0.20: 0.40, 0.05: 0.05}
    assert {a: crc_threshold(POSITIVES, a, grid) for a in expected} == pytest.approx(expected)
    assert crc_threshold(POSITIVES, 0.04, grid) is None
    continuous = {0.10: 0.21, 0.15: 0.33, 0.20: 0.41, 0.05: 0.08}
    assert {a: crc_threshold(POSITIVES, a) for a in continuous} == pytest.approx(continuous)
    assert crc_threshold(POSITIVES, 0.04) is None


def test_crc_keeps_its_mean() -> None:
    rng = np.random.default_rng(0)
    missed = []
    for _ in range(2000):
        scores = rng.random(60)
        missed.append(scores[0] < (crc_threshold(scores[1:], 0.1) or 0.0))
    assert np.mean(missed) <= 0.1 + 3 * np.sqrt(0.09 / 2000)


@pytest.mark.parametrize(
    ("test", "coverage", "alpha", "threshold", "n_selected", "lambda_set", "members"),
    [
        ((0.95, 0.95), 0.5, 0.1, 0.80, 10, 0.20, (1,)),
        ((0.95, 0.95), 0.5, 0.2, 0.80, 10, 0.17, (1,)),
        ((0.95, 0.95), 0.8, 0.1, 0.62, 16, 0.77, (1,)),
        ((0.95, 0.95), 0.8, 0.2, 0.62, 16, 0.38, (1,)),
        ((0.70, 0.30), 0.5, 0.1, 0.77, 11, 0.77, ()),
        ((0.70, 0.30), 0.8, 0.1, 0.62, 16, 0.77, (0, 1)),
        ((0.70, 0.30), 0.8, 0.2, 0.62, 16, 0.38, (0,)),
    ],
)
def test_scrc_joint(
    test: tuple[float, float],
    coverage: float,
    alpha: float,
    threshold: float,
    n_selected: int,
    lambda_set: float,
    members: tuple[int, ...],
) -> None:
    g, p = test
    found = scrc_joint(
        CONFIDENCE, PROBABILITIES, LABELS, g, np.array([1 - p, p]), coverage=coverage, alpha=alpha
    )
    assert found.threshold == pytest.approx(threshold)
    assert found.n_selected == n_selected
    assert found.accepted == (members != ())
    assert found.prediction_set == members
    if found.accepted:
        assert found.lambda_set == pytest.approx(lambda_set)


def test_scrc_joint_with_too_few_selected_is_infeasible() -> None:
    found = scrc_joint(
        CONFIDENCE, PROBABILITIES, LABELS, 0.99, np.array([0.01, 0.99]), coverage=0.3, alpha=0.1
    )
    assert found.n_selected < 9
    assert found.lambda_set is None
    assert found.prediction_set == ()


def test_scrc_inductive() -> None:
    rng = np.random.default_rng(7)
    g = rng.random(4000)
    error = rng.random(4000) < 0.25 * (1 - g)
    assert error.sum() == 508
    grid = np.arange(10, 20) / 20
    found = scrc_inductive(g, error, grid, min_coverage=0.1, alpha=0.05, delta=0.1)
    assert found is not None
    assert found.threshold == pytest.approx(0.75)
    assert found.coverage == pytest.approx(0.253)
    assert found.coverage_lower_bound == pytest.approx(0.233649, abs=5e-7)
    assert found.risk == pytest.approx(0.0266798, abs=5e-8)
    assert found.p_value == pytest.approx(1.525e-4, rel=5e-4)
    assert scrc_inductive(g, error, grid, min_coverage=0.3, alpha=0.05, delta=0.1) is None


def test_the_fixed_sequence_covers_more_than_the_grid_of_the_paper() -> None:
    """Both are valid; `certify` needs no correction for the size of the grid."""
    rng = np.random.default_rng(7)
    g = rng.random(4000)
    error = rng.random(4000) < 0.25 * (1 - g)
    counted = np.ones(4000, dtype=bool)
    samples = Samples(g, error, counted)
    found = certify(
        samples.take(np.arange(1200)),
        samples.take(np.arange(1200, 4000)),
        alpha=0.05,
        delta=0.05,
        coverage_delta=0.05,
    )
    grid = np.arange(10, 20) / 20
    paper = scrc_inductive(g[1200:], error[1200:], grid, min_coverage=0.0, alpha=0.05, delta=0.1)
    assert found is not None
    assert paper is not None
    assert found.coverage > paper.coverage

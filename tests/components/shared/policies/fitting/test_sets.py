"""Certified prediction sets are valid in simulation, and as small as the data allow."""

import numpy as np
import pytest

from components.shared.policies.fitting.sets import SetSamples, certify_sets, selection_threshold
from components.shared.stats.metrics import sigmoid
from components.shared.stats.multiple_testing import METHODS

ALPHA, DELTA, COVERAGE = 0.05, 0.1, 0.6


def _draw(rng: np.random.Generator, count: int) -> SetSamples:
    """Confidence, and the stated probability of the truth: twice as extreme as it should be."""
    margin = rng.normal(size=count) * 3
    truth = rng.random(count) < sigmoid(margin / 2)
    return SetSamples(np.abs(margin), sigmoid(np.where(truth, margin, -margin)))


def _certify(
    tuning: SetSamples, samples: SetSamples, method: str = "fixed_sequence"
) -> tuple[float, float, float] | None:
    """(threshold, s, lower bound of coverage)."""
    threshold = selection_threshold(tuning[0], len(samples[0]), COVERAGE, DELTA / 2)
    found = certify_sets(
        tuning,
        samples,
        threshold=threshold,
        alpha=ALPHA,
        delta=DELTA / 2,
        coverage_delta=DELTA / 2,
        method=method,
    )
    return None if found is None else (threshold, found[1], found[0].coverage_lower_bound)


@pytest.mark.parametrize("method", METHODS)
def test_miscoverage_and_coverage_are_kept(method: str) -> None:
    rng = np.random.default_rng(0)
    confidence, truth = _draw(rng, 100_000)
    draws, violations, too_low = 150, 0, 0
    for _ in range(draws):
        found = _certify(_draw(rng, 300), _draw(rng, 700), method)
        assert found is not None
        threshold, least, lower = found
        selected = confidence >= threshold
        violations += (truth[selected] < least).mean() > ALPHA
        too_low += selected.mean() < lower
    allowed = DELTA / 2 + 3 * np.sqrt(DELTA / 2 * (1 - DELTA / 2) / draws)
    assert violations / draws <= allowed
    assert too_low / draws <= allowed


def test_more_samples_need_fewer_sets_of_both() -> None:
    least = []
    for count in (1000, 30_000):
        rng = np.random.default_rng(1)
        found = _certify(_draw(rng, count // 3), _draw(rng, count))
        assert found is not None
        least.append(found[1])
    assert 0 < least[0] < least[1] <= 0.5


def test_a_faultless_model_gets_single_classes() -> None:
    part = SetSamples(np.linspace(1, 5, 200), np.linspace(0.7, 0.99, 200))
    found = _certify(part, part)
    assert found is not None
    assert found[1] == 0.5


def test_too_few_samples_certify_nothing() -> None:
    rng = np.random.default_rng(2)
    assert _certify(_draw(rng, 20), _draw(rng, 30)) is None
    assert selection_threshold(np.arange(20.0), 30, COVERAGE, DELTA) == 0.0

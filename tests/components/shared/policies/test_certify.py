"""Certified thresholds are valid in simulation and under ties, and close to the oracle."""

import dataclasses

import numpy as np
import pytest

from components.calibrate_scrc.config import CalibrateScrcConfig
from components.shared.policies.calibration_split import draw_calibration_split
from components.shared.policies.certify import Samples, best_level, certify
from components.shared.policies.policy import Infeasible
from components.shared.policies.targets import (
    ALL_ANSWERS,
    Certified,
    certify_targets,
    target_of,
)
from components.shared.stats.bounds import binomial_p_value
from components.shared.stats.metrics import Bools, Floats
from components.shared.stats.multiple_testing import METHODS, bonferroni, fixed_sequence, holm

ALPHA, DELTA, N = 0.05, 0.1, 1000


def _draw(rng: np.random.Generator, count: int, shape: str = "hard") -> Samples:
    confidence = rng.random(count)
    if shape == "tied":
        confidence = np.ceil(confidence * 10) / 10
    rate = {
        "easy": 0.3 * (1 - confidence) ** 3,
        "hard": 0.25 * (1 - confidence),
        "tied": 0.25 * (1 - confidence),
    }[shape]
    return Samples(confidence, rng.random(count) < rate, np.ones(count, bool))


def _true_risk(threshold: float, shape: str) -> float:
    u = (np.arange(100_000) + 0.5) / 100_000
    if shape == "tied":
        u = np.ceil(u * 10) / 10
    rate = 0.3 * (1 - u) ** 3 if shape == "easy" else 0.25 * (1 - u)
    return float(rate[u >= threshold].mean())


def test_counts_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    samples = Samples(rng.integers(0, 9, 200) / 8, rng.random(200) < 0.3, rng.random(200) < 0.5)
    thresholds = np.array([-1.0, 0.0, 0.3, 0.5, 1.0, 1.5])
    n_accepted, n_errors = samples.counts(thresholds)
    for threshold, n, k in zip(thresholds, n_accepted, n_errors, strict=True):
        accepted = (samples.confidence >= threshold) & samples.counted
        assert (n, k) == (accepted.sum(), (accepted & samples.loss).sum())


@pytest.mark.parametrize("shape", ["easy", "hard", "tied"])
@pytest.mark.parametrize("method", METHODS)
def test_violations_stay_below_delta(shape: str, method: str) -> None:
    rng = np.random.default_rng(1)
    draws, violations = 150, 0
    for _ in range(draws):
        found = certify(
            _draw(rng, 300, shape),
            _draw(rng, 700, shape),
            alpha=ALPHA,
            delta=DELTA,
            coverage_delta=DELTA,
            method=method,
        )
        violations += found is not None and _true_risk(found.threshold, shape) > ALPHA
    assert violations / draws <= DELTA + 3 * np.sqrt(DELTA * (1 - DELTA) / draws)


def test_more_samples_come_closer_to_the_oracle() -> None:
    """The largest coverage with a true risk of 0.05 is 0.40."""
    coverage = []
    for count in (1000, 20_000):
        rng = np.random.default_rng(2)
        found = certify(
            _draw(rng, count // 4),
            _draw(rng, count),
            alpha=ALPHA,
            delta=DELTA,
            coverage_delta=DELTA,
        )
        coverage.append(found.coverage if found else 0.0)
    assert coverage[0] < coverage[1]
    assert coverage[1] == pytest.approx(0.4, abs=0.06)


def test_the_certificate_reports_what_it_rests_on() -> None:
    rng = np.random.default_rng(3)
    samples = _draw(rng, 4000, "easy")
    found = certify(
        _draw(rng, 1000, "easy"), samples, alpha=ALPHA, delta=DELTA, coverage_delta=DELTA
    )
    assert found is not None
    accepted = samples.confidence >= found.threshold
    assert found.n_accepted == accepted.sum()
    assert found.risk == pytest.approx(samples.loss[accepted].mean())
    assert found.p_value == binomial_p_value(found.n_errors, found.n_accepted, ALPHA) <= DELTA
    assert found.coverage - found.coverage_lower_bound == pytest.approx(np.sqrt(np.log(10) / 8000))


def test_only_counted_samples_are_tested() -> None:
    """False negative rate: negatives fill the accepted, but prove nothing about positives."""
    rng = np.random.default_rng(4)
    confidence, positive = rng.random(3000), rng.random(3000) < 0.01
    samples = Samples(confidence, np.zeros(3000, bool), positive)
    tuning = Samples(confidence[:500], np.zeros(500, bool), np.ones(500, bool))
    assert certify(tuning, samples, alpha=ALPHA, delta=DELTA, coverage_delta=DELTA) is None
    everything = Samples(confidence, np.zeros(3000, bool), np.ones(3000, bool))
    assert certify(tuning, everything, alpha=ALPHA, delta=DELTA, coverage_delta=DELTA) is not None


def test_an_impossible_level_is_none_and_the_best_level_is_certifiable() -> None:
    rng = np.random.default_rng(5)

    def noise(count: int) -> Samples:
        return Samples(rng.random(count), rng.random(count) < 0.4, np.ones(count, bool))

    tuning, samples = noise(300), noise(700)
    assert certify(tuning, samples, alpha=ALPHA, delta=DELTA, coverage_delta=DELTA) is None
    level = best_level(tuning, samples, delta=DELTA, method="fixed_sequence", start=ALPHA)
    assert 0.35 < level < 0.6
    assert certify(tuning, samples, alpha=level, delta=DELTA, coverage_delta=DELTA) is not None


def test_procedures() -> None:
    p = np.array([0.01, 0.04, 0.2, 0.001])
    assert fixed_sequence(p, 0.1).tolist() == [True, True, False, False]
    assert bonferroni(p, 0.1).tolist() == [True, False, False, True]
    assert holm(p, 0.1).tolist() == [True, True, False, True]
    for procedure in (fixed_sequence, bonferroni, holm):
        assert procedure(np.array([]), 0.1).tolist() == []


def test_family_wise_error_of_independent_true_nulls() -> None:
    rng = np.random.default_rng(6)
    p = rng.random((4000, 12))
    for procedure in (fixed_sequence, bonferroni, holm):
        rate = np.mean([procedure(row, 0.1).any() for row in p])
        assert rate <= 0.1 + 3 * np.sqrt(0.09 / 4000)


def test_published_examples_of_learn_then_test() -> None:
    """Thresholds that certify precision and recall of 0.8, from MAPIE 1.6.0 at confidence 0.9."""
    i = np.arange(600)
    score = 1 / (1 + np.exp(-(4 * np.sin(1.7 * i + 0.3) + 1.2 * np.cos(0.6 * i))))
    truth: Bools = (1.1 * np.sin(1.7 * i + 0.3) + 0.9 * np.sin(2.9 * i + 1)) > 0
    grid: Floats = np.arange(1, 20) / 20
    flagged = score >= grid[:, None]
    precision = binomial_p_value((flagged & ~truth).sum(axis=1), flagged.sum(axis=1), 0.2)
    assert (
        grid[holm(precision, 0.1)].tolist()
        == grid[bonferroni(precision, 0.1)].tolist()
        == [0.8, 0.85, 0.9, 0.95]
    )
    assert grid[::-1][fixed_sequence(precision[::-1], 0.1)].tolist() == [
        0.95,
        0.9,
        0.85,
        0.8,
        0.75,
        0.7,
        0.65,
    ]
    recall = binomial_p_value((~flagged & truth).sum(axis=1), np.full(19, truth.sum()), 0.2)
    assert grid[bonferroni(recall, 0.1)].tolist() == [0.05, 0.1, 0.15, 0.2, 0.25, 0.3]
    assert grid[fixed_sequence(recall, 0.1)].max() == 0.45


@pytest.mark.parametrize("method", METHODS)
def test_a_masked_sample_is_never_accepted(method: str) -> None:
    """Samples without an error: even then the threshold is finite, and masked samples defer."""
    rng = np.random.default_rng(7)
    everything = _draw(rng, 1000)
    faultless = Samples(everything.confidence, np.zeros(1000, bool), everything.counted)
    acceptable = rng.random(1000) < 0.5
    masked = faultless.mask(acceptable)
    assert masked.counts(np.array([-1.0]))[0] == acceptable.sum()
    rows = np.arange(1000)
    found = certify(
        masked.take(rows[:300]),
        masked.take(rows[300:]),
        alpha=ALPHA,
        delta=DELTA,
        coverage_delta=DELTA,
        method=method,
    )
    assert found is not None
    assert np.isfinite(found.threshold)
    assert found.coverage <= acceptable[300:].mean()


def test_without_an_acceptable_tuning_sample_there_is_no_threshold() -> None:
    """Masked samples have the confidence -inf, which would accept everything."""
    samples = Samples(np.arange(200.0), np.zeros(200, bool), np.ones(200, bool))
    none = samples.mask(np.zeros(200, dtype=bool))
    certificate = certify(none, samples, alpha=0.1, delta=0.1, coverage_delta=0.1)
    assert certificate is None
    half = samples.mask(np.arange(200) % 2 == 0)
    found = certify(half, half, alpha=0.1, delta=0.1, coverage_delta=0.1)
    assert found is not None
    assert found.threshold == 0
    assert found.coverage == 0.5


def test_large_hard_groups_do_not_hide_a_threshold_that_holds_per_group() -> None:
    """A tenth of the places has twenty images each, all wrong: 69 % of images, 10 % of places."""
    rng = np.random.default_rng(3)
    sizes = np.where(np.arange(200) % 10 == 0, 20, 1)
    place = np.repeat(np.arange(200), sizes)
    groups = [f"place{number}" for number in place]
    samples = Samples(
        confidence=rng.random(len(place)),
        loss=sizes[place] > 1,
        counted=np.ones(len(place), dtype=bool),
    )
    config = CalibrateScrcConfig(alpha=0.2, delta=0.1)
    split = draw_calibration_split(groups, 0.3, seed=0)

    weighted = target_of(config, ALL_ANSWERS, samples, groups, split)
    by_image = dataclasses.replace(
        weighted, tuning=dataclasses.replace(weighted.tuning, weight=None)
    )

    found = certify_targets(config, [weighted], "scrc")
    assert isinstance(found, Certified)
    assert found.coverage > 0.9
    assert isinstance(certify_targets(config, [by_image], "scrc"), Infeasible)

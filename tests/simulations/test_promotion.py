"""The simulation in short: promotions that are wrong stay within the budget, better models pass."""

import numpy as np
import pytest

from components.promote_bundle.spending import level
from components.shared.stats.metrics import mcc
from tests.simulations.promotion import (
    BUDGET,
    GAIN,
    MCC,
    NIGHTS,
    Setting,
    TestImages,
    errors_of,
    is_worth_testing,
    power,
    quality,
    settings,
    simulate,
)

SERIES = 100
SETTINGS = {setting.name: setting for setting in settings()}


def _most(n_series: int) -> float:
    """The budget, and three standard errors of a fraction of so many series."""
    return float(BUDGET + 3 * np.sqrt(BUDGET * (1 - BUDGET) / n_series))


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_wrong_promotions_of_500_nights_stay_within_the_budget(name: str) -> None:
    # A test without a group that is added is wrong in a tenth of these series.
    n_series = 3 * SERIES if "blind" in name else SERIES
    found = simulate(SETTINGS[name], n_series, NIGHTS)
    assert found.spending <= _most(n_series)
    # The rules that do not count the nights are wrong in most series.
    assert found.every_night > 0.3
    assert found.ladder > found.every_night


def test_wrong_promotions_of_a_month_stay_within_the_budget() -> None:
    n_series = 30
    found = simulate(settings(60)[0], n_series, 30)
    assert found.spending <= _most(n_series)
    assert found.ladder > 3 * BUDGET


def test_power_rises_with_groups_and_falls_with_the_number_of_the_comparison() -> None:
    few, many = power(60, [1, 500], 20), power(1000, [1, 500], 20)
    assert many[0] >= 0.5
    assert many[0] > few[0]
    assert many[0] >= many[1]


def test_models_have_the_quality_that_they_say() -> None:
    rng = np.random.default_rng(0)
    for prevalence, threshold, blind in ((0.5, 0.0, 0.0), (0.1, 0.0, 0.0), (0.5, 0.35, 0.08)):
        model = quality(MCC - 0.1, prevalence, threshold=threshold, blind=blind)
        assert model.mcc(prevalence) == pytest.approx(MCC - 0.1)
        images = TestImages.draw(rng, 60_000, prevalence=prevalence)
        decided = images.decisions(rng, model)
        assert float(mcc(images.truth, decided)) == pytest.approx(MCC - 0.1, abs=0.01)
    assert quality(MCC + GAIN, 0.5).mcc(0.5) == pytest.approx(MCC + GAIN)


@pytest.mark.parametrize("setting", settings(100), ids=lambda setting: setting.name)
def test_no_series_skips_a_test_that_could_have_passed(setting: Setting) -> None:
    """What the simulation does not compute is larger than the level."""
    rng = np.random.default_rng(1)
    images = TestImages.draw(rng, 100, prevalence=setting.prevalence)
    models = [setting.champion, *(setting.draw(rng) for _ in range(200))]
    decisions = np.array([images.decisions(rng, model) for model in models])
    value, without = images.scored(decisions)
    errors = errors_of(value[1:] - value[0], without[1:] - without[0])
    for row in np.flatnonzero(errors > 1.5).tolist():
        p_value = images.p_value(decisions[row + 1], decisions[0])
        passed = [number for number in (1, 5, 50, 500) if p_value <= level(number, BUDGET)]
        assert all(is_worth_testing(float(errors[row]), level(n, BUDGET)) for n in passed)

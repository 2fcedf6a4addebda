"""The network's reward: rows of the validator, and the expectation against simulation."""

import numpy as np
import pytest

from components.shared.stats.metrics import Floats, mcc
from components.shared.stats.reward import expected_reward, expected_reward_of_rates
from tests.components.shared.stats.validator_reward import reward

LABELS = np.arange(100) % 2 == 1
PERFECT = np.where(LABELS, 0.9, 0.1)


def _with(changes: dict[int, float]) -> Floats:
    answers = PERFECT.copy()
    for step, value in changes.items():
        answers[step] = value
    return answers


def _wrong(*steps: int) -> Floats:
    return _with({step: 1 - PERFECT[step] for step in steps})


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (PERFECT, 1.0),
        (_wrong(3, 20, 41, 60), 0.884736),
        (_wrong(*range(0, 61, 10)), 0.8155055820283355),
        (_wrong(95), 0.8308438834599869),
        (_with({99: -1.0}), 0.0),
        (_with({99: 1.2}), 0.0),
        (_with({99: np.nan}), 0.0),
        (_with({50: np.nan}), 0.125),
        (_with({50: 1.2}), 0.9705872644),
        (_with({50: 1.7}), 0.125),
        (np.full(100, 0.5), 0.015625),
    ],
)
def test_rows_of_the_validator(answers: Floats, expected: float) -> None:
    assert reward(LABELS, answers) == pytest.approx(expected, abs=5e-11)


def test_five_correct_answers_of_one_class() -> None:
    assert reward(np.ones(5, bool), np.full(5, 0.9)) == 0.125


def test_a_missing_answer_keeps_its_place_in_the_windows() -> None:
    """The validator cuts the last 100 (and 10) images, then leaves out those without an answer."""
    assert reward(LABELS, _with({50: -1.0})) == 1.0
    # A wrong answer before the window does not come back.
    assert reward(np.r_[True, LABELS], np.r_[0.1, _with({50: -1.0})]) == 1.0
    # Of the last ten images one has no answer: eight of nine are right, not nine of ten.
    mixed = _with({95: -1.0, 97: 1 - PERFECT[97]})
    matthews = mcc(np.delete(LABELS, 95), np.delete(mixed, 95) > 0.5)
    assert reward(LABELS, mixed) == pytest.approx((0.5 * float(matthews) + 0.5 * 8 / 9) ** 3)


def test_only_the_last_hundred_count() -> None:
    assert reward(np.r_[LABELS, LABELS], np.r_[1 - PERFECT, PERFECT]) == 1.0
    assert reward(LABELS[:0], PERFECT[:0]) == 0


@pytest.mark.parametrize(
    ("tpr", "tnr", "simulated"),
    [
        (0.996, 0.868, 0.7387),
        (0.90, 0.90, 0.6225),
        (0.93, 0.93, 0.7249),
        (0.95, 0.95, 0.7967),
        (0.98, 0.98, 0.9149),
    ],
)
def test_expectation_agrees_with_published_simulations(
    tpr: float, tnr: float, simulated: float
) -> None:
    assert expected_reward_of_rates(tpr, tnr) == pytest.approx(simulated, abs=2e-3)


def test_expectation_agrees_with_sequences_drawn_here() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random((4000, 100)) < 0.5
    right = rng.random((4000, 100)) < np.where(labels, 0.85, 0.95)
    drawn = [
        reward(truth, np.where(truth == hit, 0.9, 0.1))
        for truth, hit in zip(labels, right, strict=True)
    ]
    error = np.std(drawn) / np.sqrt(len(drawn))
    assert expected_reward_of_rates(0.85, 0.95) == pytest.approx(np.mean(drawn), abs=3.5 * error)


def test_ends_of_the_scale() -> None:
    assert expected_reward_of_rates(1.0, 1.0) == pytest.approx(1, abs=1e-9)
    # Always "Roadwork": no MCC, and the accuracy of 10 fair coins.
    k = np.arange(11)
    chances = np.array([1, 10, 45, 120, 210, 252, 210, 120, 45, 10, 1]) / 1024
    assert expected_reward_of_rates(1.0, 0.0) == pytest.approx(
        float(((k / 20) ** 3 * chances).sum()), abs=1e-9
    )


def test_decisions_enter_through_their_rates_whatever_the_class_balance() -> None:
    truth = np.repeat([True, False], [20, 180])
    decision = truth.copy()
    decision[[0, 1]] = False
    decision[100:118] = True
    assert expected_reward(truth, decision) == expected_reward_of_rates(0.9, 0.9)
    assert np.isnan(expected_reward(truth, decision, truth.astype(float)))


def test_a_batch_of_replicates_gives_what_each_gives() -> None:
    truth = np.arange(200) % 2 == 0
    decision = truth ^ (np.arange(200) % 9 == 0)
    weights = np.random.default_rng(0).integers(0, 3, (2000, 200)).astype(float)
    values = expected_reward(truth, decision, weights)
    assert values[7] == pytest.approx(expected_reward(truth, decision, weights[7]), abs=1e-12)

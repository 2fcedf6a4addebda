"""What is certified is observed in the same unit; a gate is better only beyond noise."""

import dataclasses

import numpy as np
import pytest

from components.evaluate.inputs import FittedPolicy
from components.evaluate.policies import predict
from components.evaluate.report.guarantees import (
    Guarantee,
    PolicyComparison,
    compare_to_confidence,
    measure_guarantees,
)
from components.shared.contracts.outcomes import Outcomes
from components.shared.policies.policy import ScrcPolicy
from components.shared.policies.predictions import Predictions
from components.shared.policies.targets import ALL_ANSWERS
from components.shared.stats.risk_coverage import augrc
from tests.components.evaluate.report.examples import (
    ROADWORK,
    TARGETS,
    class_logits,
    predictions,
)


def _policy(outcomes: Outcomes = ROADWORK, risk: str = "error") -> ScrcPolicy:
    return ScrcPolicy(
        kind="scrc",
        outcomes=outcomes,
        threshold=0.5,
        threshold_margin=0.0,
        risk=risk,
        alpha=0.2,
        delta=0.1,
        coverage_lower_bound=0.4,
        answer_from=(1.0,) * len(outcomes.names),
    )


def _measured(policy: ScrcPolicy, shown: Predictions, *certified: str) -> tuple[Guarantee, ...]:
    return measure_guarantees(
        policy,
        shown,
        certified or (ALL_ANSWERS,),
        attempt=1,
        targets=TARGETS,
        n_replicates=100,
        seed=0,
    )


def test_the_observed_risk_is_the_certified_one() -> None:
    shown = dataclasses.replace(predictions(), answered=np.arange(300) < 200)
    answered, positive = shown.answered, shown.is_positive
    [error] = _measured(_policy(), shown)
    assert error.risk == "error rate"
    assert error.observed_risk_per_image["value"] == pytest.approx(shown.error[answered].mean())
    assert error.observed_coverage["value"] == pytest.approx(answered.mean())
    [fnr] = _measured(_policy(risk="fnr"), shown)
    assert fnr.risk == "false negative rate"
    missed = shown.error[answered & positive].mean()
    assert fnr.observed_risk_per_image["value"] == pytest.approx(missed)


def test_the_certified_unit_is_a_random_image_of_a_random_group() -> None:
    """20 long, hard drives and 180 short, easy ones: 2 % of groups' images, 50 % of all images."""
    sizes = np.array([30] * 20 + [1] * 180)
    groups = tuple(f"g{number}" for number in np.repeat(np.arange(200), sizes))
    hard = np.repeat(sizes > 1, sizes)
    n = len(groups)
    base = predictions(n)
    decision = np.where(hard & (np.arange(n) % 2 == 0), 1 - base.truth, base.truth)
    shown = dataclasses.replace(
        base,
        decision=decision,
        groups=groups,
        answer_sets=np.eye(2, dtype=bool)[decision],
        answered=np.ones(n, bool),
    )
    [found] = _measured(_policy(), shown)
    assert found.observed_risk["value"] == pytest.approx(0.5 * 20 / 200)
    assert found.observed_risk_per_image["value"] == pytest.approx(0.5 * 600 / 780)
    for entry in (found.observed_risk, found.observed_risk_per_image):
        value, bounds = entry["value"], entry["interval_95"]
        assert value is not None
        assert bounds is not None
        assert bounds[0] < value < bounds[1]
    document = found.to_json()
    assert document["unit"] == "a random image of a random group"
    assert document["observed_risk"] == found.observed_risk


@pytest.mark.parametrize("names", [("Plain", "Pothole"), ("car", "bus", "tram")])
def test_a_certificate_of_one_answer_is_observed_among_these_answers(
    names: tuple[str, ...],
) -> None:
    policy = _policy(Outcomes.of(names))
    logits = class_logits(names)
    shown = predict(FittedPolicy(logits, policy))
    found = _measured(policy, shown, *names)
    assert [entry.answer for entry in found] == list(names)
    for number, entry in enumerate(found):
        asked = shown.answered & (shown.decision == number)
        assert entry.observed_risk_per_image["value"] == pytest.approx(shown.error[asked].mean())


def test_an_answer_without_an_error_has_an_interval_with_width() -> None:
    shown = predictions()
    right = dataclasses.replace(
        shown, decision=shown.truth, answer_sets=np.eye(2, dtype=bool)[shown.truth]
    )
    [found] = _measured(_policy(), right)
    assert found.observed_risk["value"] == 0
    assert found.observed_risk["interval_95"] is not None
    assert found.observed_risk["interval_95"][1] > 0


def _confidence(shown: Predictions) -> np.ndarray:
    return np.abs(shown.log_odds - 0.5)


def test_the_same_ranking_differs_by_nothing() -> None:
    shown = predictions()
    comparison = compare_to_confidence("scrc", shown, _confidence(shown), n_replicates=100, seed=0)
    assert (comparison.difference, comparison.interval_95) == (0, None)
    assert not comparison.better


def test_a_score_that_knows_the_errors_is_better() -> None:
    shown = predictions()
    oracle = dataclasses.replace(shown, confidence=np.where(shown.error, 0.0, 1.0))
    comparison = compare_to_confidence("gate", oracle, _confidence(shown), n_replicates=200, seed=0)
    expected = augrc(oracle.confidence, shown.error) - augrc(shown.confidence, shown.error)
    assert comparison.difference == pytest.approx(expected)
    assert comparison.better
    document = comparison.to_json()
    assert document["better"]
    assert document["decided_on"] == "VAL_TEST"


@pytest.mark.parametrize(
    ("interval", "better"), [((-0.2, -0.1), True), ((-0.2, 0.0), False), (None, False)]
)
def test_better_needs_the_whole_interval(
    interval: tuple[float, float] | None, better: bool
) -> None:
    assert PolicyComparison("gate", -0.1, interval).better is better

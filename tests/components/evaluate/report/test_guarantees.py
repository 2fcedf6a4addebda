"""A gate is better than the model's confidence only if the whole paired interval says so."""

import dataclasses

import numpy as np
import pytest

from components.evaluate.report.guarantees import Guarantee, PolicyComparison, compare_to_confidence
from components.evaluate.report.scorecard import Entry
from components.shared.contracts.outcomes import Outcomes
from components.shared.policies.policy import ScrcPolicy
from components.shared.stats.risk_coverage import augrc
from tests.components.evaluate.report.examples import predictions

POLICY = ScrcPolicy(
    kind="scrc",
    outcomes=Outcomes.of(("None", "Roadwork")),
    threshold=0.5,
    threshold_margin=0.0,
    risk="fnr",
    alpha=0.2,
    delta=0.1,
    coverage_lower_bound=0.4,
    answer_from=(1.0, 1.0),
)


def test_the_observed_risk_is_the_certified_one() -> None:
    rates = {"exit_error": 0.1, "exit_fnr": 0.15, "exit_rate": 0.6}
    metrics: dict[str, Entry] = {
        name: {"value": value, "interval_95": None} for name, value in rates.items()
    }
    guarantee = Guarantee.of(POLICY, metrics)
    assert (guarantee.risk, guarantee.observed_risk["value"]) == ("false negative rate", 0.15)
    assert guarantee.observed_coverage["value"] == 0.6
    error = Guarantee.of(dataclasses.replace(POLICY, risk="error"), metrics)
    assert (error.risk, error.observed_risk["value"]) == ("error rate", 0.1)


def test_the_same_ranking_differs_by_nothing() -> None:
    shown = predictions()
    comparison = compare_to_confidence("scrc", shown, 0.5, n_replicates=100, seed=0)
    assert (comparison.difference, comparison.interval_95) == (0, None)
    assert not comparison.better


def test_a_score_that_knows_the_errors_is_better() -> None:
    shown = predictions()
    oracle = dataclasses.replace(shown, confidence=np.where(shown.error, 0.0, 1.0))
    comparison = compare_to_confidence("gate", oracle, 0.5, n_replicates=200, seed=0)
    expected = augrc(oracle.confidence, shown.error) - augrc(shown.confidence, shown.error)
    assert comparison.difference == pytest.approx(expected)
    assert comparison.better
    assert comparison.to_json()["better"]


@pytest.mark.parametrize(
    ("interval", "better"), [((-0.2, -0.1), True), ((-0.2, 0.0), False), (None, False)]
)
def test_better_needs_the_whole_interval(
    interval: tuple[float, float] | None, better: bool
) -> None:
    assert PolicyComparison("gate", -0.1, interval).better is better

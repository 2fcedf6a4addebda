"""The scorecard: one table of metrics, each with its interval, None where it does not exist."""

import dataclasses

import numpy as np
import pytest

from components.evaluate.report.scorecard import (
    HIGHER,
    LOWER,
    METRIC_GROUPS,
    METRICS,
    measure,
)
from components.evaluate.targets import Targets
from components.shared.stats import metrics, risk_coverage
from tests.components.evaluate.report.examples import predictions

TARGETS = Targets(precision=0.95, risk=0.05)


def test_names_are_unique_and_every_metric_has_a_direction() -> None:
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names)) == sum(len(group) for group in METRIC_GROUPS.values())
    assert {metric.direction for metric in METRICS} == {HIGHER, LOWER}


def test_labels_name_their_operating_point() -> None:
    labels = [
        metric.label_at(Targets(precision=0.9, risk=0.02, coverage=0.7)) for metric in METRICS
    ]
    assert "Coverage at precision 0.9" in labels
    assert "Coverage at error rate 0.02" in labels
    assert "Error rate at coverage 0.7" in labels
    assert not [label for label in labels if "{" in label]


def test_values_are_those_of_the_functions_and_lie_in_their_intervals() -> None:
    shown = predictions()
    values = measure(shown, targets=TARGETS, n_replicates=100, seed=0)
    assert list(values) == [metric.name for metric in METRICS]
    assert values["mcc"]["value"] == pytest.approx(float(metrics.mcc(shown.truth, shown.decision)))
    expected = float(risk_coverage.augrc(shown.confidence, shown.error))
    assert values["augrc"]["value"] == pytest.approx(expected)
    assert values["nll"]["value"] == pytest.approx(float(metrics.nll(shown.truth, shown.margin)))
    for name in ("accuracy", "auroc", "brier", "aurc", "exit_error"):
        value, bounds = values[name]["value"], values[name]["interval_95"]
        assert value is not None
        assert bounds is not None
        assert bounds[0] <= value <= bounds[1]


def test_rates_of_a_policy_that_defers_and_answers_both() -> None:
    truth = np.array([True, True, False, False])
    shown = dataclasses.replace(
        predictions(4),
        truth=truth,
        decision=np.array([True, False, True, False]),
        answered=np.array([True, True, True, False]),
        both=np.array([False, False, True, False]),
    )
    values = measure(shown, targets=TARGETS, n_replicates=100, seed=0)
    found = {name: entry["value"] for name, entry in values.items() if name.startswith("exit")}
    assert found == {
        "exit_rate": 0.75,
        "exit_both": pytest.approx(1 / 3),
        "exit_accuracy": pytest.approx(2 / 3),
        "exit_error": pytest.approx(1 / 3),
        "exit_fnr": 0.5,
    }


def test_what_does_not_exist_is_none() -> None:
    shown = dataclasses.replace(predictions(), answered=np.zeros(300, bool))
    values = measure(shown, targets=TARGETS, n_replicates=100, seed=0)
    assert values["exit_rate"]["value"] == 0
    assert values["exit_error"] == {"value": None, "interval_95": None}

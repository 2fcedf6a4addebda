"""The scorecard: one table of metrics for each task, each with its interval or band, or None."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as peer

from components.evaluate.report.scorecard import (
    HIGHER,
    LOWER,
    Entry,
    measure,
    metric_groups,
    metrics_of,
    per_group,
)
from components.evaluate.targets import Targets
from components.shared.contracts.outcomes import TASKS, Outcomes
from components.shared.stats import metrics, risk_coverage
from components.shared.stats.metrics import Floats, Weights
from tests.components.evaluate.report.examples import class_predictions, predictions

TARGETS = Targets(precision=0.95, risk=0.05)


@pytest.mark.parametrize("task", TASKS)
def test_names_are_unique_and_every_metric_has_a_direction(task: str) -> None:
    groups = metric_groups(task)
    names = [metric.name for group in groups.values() for metric in group]
    assert len(names) == len(set(names))
    assert names == list(metrics_of(task))
    assert {metric.direction for metric in metrics_of(task).values()} == {HIGHER, LOWER}


def test_a_multiclass_task_has_nothing_of_a_positive_class() -> None:
    binary, several = metrics_of("binary"), metrics_of("multiclass")
    assert binary.keys() - several.keys() == {
        "f1",
        "expected_reward",
        "auroc",
        "average_precision",
        "coverage_at_precision",
        "ece_positive_class",
        "brier",
        "exit_both",
        "exit_fnr",
        "deferred_positives",
    }
    assert several.keys() - binary.keys() == {
        "precision_macro",
        "f1_macro",
        "auroc_macro",
        "average_precision_macro",
        "ece_classwise",
        "brier_multiclass",
        "exit_several",
        "mean_set_size",
    }


def test_labels_name_their_operating_point() -> None:
    labels = [
        metric.label_at(Targets(precision=0.9, risk=0.02, coverage=0.7))
        for metric in metrics_of("binary").values()
    ]
    assert "Coverage at precision 0.9" in labels
    assert "Coverage at error rate 0.02" in labels
    assert "Error rate at coverage 0.7" in labels
    assert not [label for label in labels if "{" in label]


def _values(found: Mapping[str, Entry]) -> dict[str, Any]:
    return {name: entry["value"] for name, entry in found.items()}


def test_binary_values_are_those_of_the_functions_and_lie_in_their_intervals() -> None:
    shown = predictions()
    found = measure(shown, targets=TARGETS, n_replicates=100, seed=0)
    values, truth, decision = _values(found), shown.is_positive, shown.says_positive
    assert list(found) == list(metrics_of("binary"))
    assert values["accuracy"] == pytest.approx(peer.accuracy_score(truth, decision))
    assert values["balanced_accuracy"] == pytest.approx(
        peer.balanced_accuracy_score(truth, decision)
    )
    assert values["mcc"] == pytest.approx(peer.matthews_corrcoef(truth, decision))
    assert values["f1"] == pytest.approx(peer.f1_score(truth, decision))
    assert values["auroc"] == pytest.approx(peer.roc_auc_score(truth, shown.log_odds))
    assert values["brier"] == pytest.approx(peer.brier_score_loss(truth, shown.probability))
    assert values["nll"] == pytest.approx(peer.log_loss(truth, shown.probability))
    expected = float(risk_coverage.augrc(shown.confidence, shown.error))
    assert values["augrc"] == pytest.approx(expected)

    for name in ("accuracy", "auroc", "brier", "aurc", "exit_error"):
        value, bounds = found[name]["value"], found[name]["interval_95"]
        assert value is not None
        assert bounds is not None
        assert bounds[0] < value < bounds[1]


@pytest.mark.parametrize("n_classes", [3, 5, 43])
def test_values_of_several_classes_are_those_of_scikit_learn(n_classes: int) -> None:
    outcomes = Outcomes.of(tuple(f"class {k}" for k in range(n_classes)))
    _, shown = class_predictions(outcomes, n=330)
    found = measure(shown, targets=TARGETS, n_replicates=100, seed=0)
    values, truth, decision = _values(found), shown.truth, shown.decision
    assert list(found) == list(metrics_of("multiclass"))

    one_hot, macro = np.eye(n_classes)[truth], {"average": "macro", "zero_division": 0}
    assert values["accuracy"] == pytest.approx(peer.accuracy_score(truth, decision))
    assert values["balanced_accuracy"] == pytest.approx(
        peer.balanced_accuracy_score(truth, decision)
    )
    assert values["precision_macro"] == pytest.approx(
        peer.precision_score(truth, decision, **macro)
    )
    assert values["f1_macro"] == pytest.approx(peer.f1_score(truth, decision, **macro))
    assert values["mcc"] == pytest.approx(peer.matthews_corrcoef(truth, decision))
    assert values["auroc_macro"] == pytest.approx(
        peer.roc_auc_score(one_hot, shown.probabilities, average="macro")
    )
    assert values["average_precision_macro"] == pytest.approx(
        peer.average_precision_score(one_hot, shown.probabilities)
    )
    assert values["nll"] == pytest.approx(peer.log_loss(truth, shown.probabilities))
    assert values["brier_multiclass"] == pytest.approx(
        float(((shown.probabilities - one_hot) ** 2).sum(axis=1).mean())
    )

    # What is selected by is the K-way error, not that of one class against the rest.
    wrong = truth != decision
    assert values["exit_error"] == pytest.approx(wrong.mean())
    assert values["aurc"] == pytest.approx(float(risk_coverage.aurc(shown.confidence, wrong)))
    assert values["failure_auroc"] == pytest.approx(peer.roc_auc_score(~wrong, shown.confidence))


def test_a_calibration_error_has_the_band_of_noise_and_no_interval() -> None:
    for shown in (predictions(), class_predictions(Outcomes.of(("a", "b", "c")))[1]):
        found = measure(shown, targets=TARGETS, n_replicates=100, seed=0)
        errors = {name for name, entry in found.items() if "calibrated_95" in entry}
        assert {"ece_top_label", "ece_equal_mass", "ce_debiased", "mce_top_label"} < errors
        for name in errors:
            band = found[name].get("calibrated_95")
            assert found[name]["interval_95"] is None
            assert band is not None
            assert 0 == band[0] < band[1]


def test_no_interval_has_zero_width() -> None:
    """A policy without an error, that always answers: the exact interval over groups."""
    outcomes = Outcomes.of(("a", "b", "c"))
    _, shown = class_predictions(outcomes, n=90, signal=40.0)
    assert not shown.error.any()
    found = measure(shown, targets=TARGETS, n_replicates=100, seed=0)
    for name, entry in found.items():
        if entry["interval_95"] is not None:
            low, high = entry["interval_95"]
            assert low < high, name
    assert found["exit_error"]["interval_95"] is not None
    assert found["exit_error"]["interval_95"][1] > 0.05


def test_mean_losses_without_an_error_have_no_interval() -> None:
    """The losses of errors decide them, and none was seen."""
    shown = predictions(noise=0.4)
    assert not shown.error.any()
    found = measure(shown, targets=TARGETS, n_replicates=100, seed=0)
    assert found["nll"]["interval_95"] is found["brier"]["interval_95"] is None
    assert found["nll"]["value"] is not None

    found = measure(predictions(), targets=TARGETS, n_replicates=100, seed=0)
    assert found["nll"]["interval_95"] is not None
    assert found["brier"]["interval_95"] is not None


def test_few_groups_have_neither_intervals_nor_bands() -> None:
    shown = predictions()
    few = dataclasses.replace(shown, groups=tuple(f"g{row % 15}" for row in range(300)))
    found = measure(few, targets=TARGETS, n_replicates=100, seed=0)
    assert all(entry["interval_95"] is None for entry in found.values())
    assert all(entry.get("calibrated_95") is None for entry in found.values())


def test_rates_of_a_policy_that_defers_and_answers_both() -> None:
    shown = dataclasses.replace(
        predictions(4),
        truth=np.array([1, 1, 0, 0]),
        decision=np.array([1, 0, 1, 0]),
        answered=np.array([True, True, True, False]),
        answer_sets=np.array([[False, True], [True, False], [True, True], [True, False]]),
    )
    values = _values(measure(shown, targets=TARGETS, n_replicates=100, seed=0))
    assert {name: value for name, value in values.items() if name.startswith("exit")} == {
        "exit_rate": 0.75,
        "exit_both": pytest.approx(1 / 3),
        "exit_accuracy": pytest.approx(2 / 3),
        "exit_error": pytest.approx(1 / 3),
        "exit_fnr": 0.5,
    }


def test_an_answer_of_several_classes_is_right_where_the_true_one_is_among_them() -> None:
    shown = dataclasses.replace(
        class_predictions(Outcomes.of(("a", "b", "c")), n=4)[1],
        truth=np.array([0, 1, 2, 2]),
        decision=np.array([0, 0, 0, 2]),
        answered=np.array([True, True, True, False]),
        answer_sets=np.array([[1, 0, 0], [1, 1, 0], [1, 1, 0], [1, 1, 1]], dtype=bool),
    )
    values = _values(measure(shown, targets=TARGETS, n_replicates=100, seed=0))
    assert values["exit_rate"] == 0.75
    assert values["exit_several"] == pytest.approx(2 / 3)
    assert values["mean_set_size"] == pytest.approx(5 / 3)
    assert values["exit_accuracy"] == pytest.approx(2 / 3)
    assert values["exit_error"] == pytest.approx(1 / 3)


def test_what_does_not_exist_is_none() -> None:
    shown = dataclasses.replace(predictions(), answered=np.zeros(300, bool))
    values = measure(shown, targets=TARGETS, n_replicates=100, seed=0)
    assert values["exit_rate"]["value"] == 0
    assert values["exit_error"] == {"value": None, "interval_95": None}


def test_a_random_image_of_a_random_group_has_each_groups_weight() -> None:
    wrong = np.array([1.0, 1.0, 1.0, 0.0])

    def error(weights: Weights) -> Floats:
        return metrics.weighted_mean(wrong, weights)

    of_groups = per_group(error, ["large", "large", "large", "small"])
    assert error(None) == 0.75
    assert of_groups(None) == pytest.approx(0.5)
    without_large = np.array([[0.0, 0.0, 0.0, 1.0]])
    assert of_groups(without_large) == pytest.approx([0.0])

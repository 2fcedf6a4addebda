"""Results of several policies: the bundled one first, gates compared with confidence."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from components.evaluate.config import EvaluateConfig
from components.evaluate.inputs import EvaluationInputs, read_inputs
from components.evaluate.policies import evaluate_policies, predict
from components.shared.contracts.errors import ArtifactError

CONFIG = EvaluateConfig(n_bootstrap=100, policy="scrc")


@pytest.fixture
def read(inputs: dict[str, Path]) -> EvaluationInputs:
    policies = {kind: inputs[f"{kind}_policy"] for kind in ("softmax", "gate", "scrc")}
    return read_inputs(
        CONFIG,
        policies,
        inputs["val_test_logits"],
        inputs["gate_test_logits"],
        inputs["val_test_images"],
    )


def test_the_bundled_policy_comes_first_and_all_share_replicates(read: EvaluationInputs) -> None:
    results = evaluate_policies(CONFIG, read)
    assert list(results.results) == ["scrc", "softmax", "gate"]
    assert results.shown is results.results["scrc"]
    # Decisions do not depend on which policy defers, so neither do their intervals.
    accuracies = [result.metrics["accuracy"] for result in results.results.values()]
    assert accuracies[0] == accuracies[1] == accuracies[2]
    assert all(result.band is not None for result in results.results.values())


def test_guarantees_are_those_of_the_policies_that_defer(read: EvaluationInputs) -> None:
    results = evaluate_policies(CONFIG, read)
    assert [guarantee.kind for guarantee in results.guarantees] == ["scrc", "gate"]
    assert list(results.comparisons) == ["gate"]
    assert (results.early_exits, results.robustness, results.distilled_head) == ((), (), None)


def test_a_single_policy_needs_no_band(read: EvaluationInputs) -> None:
    alone = dataclasses.replace(read, policies={"softmax": read.policies["softmax"]})
    results = evaluate_policies(dataclasses.replace(CONFIG, policy="softmax"), alone)
    assert results.shown.band is None
    assert results.guarantees == ()


def test_predictions_are_the_policys(read: EvaluationInputs) -> None:
    fitted = read.policies["gate"]
    predictions = predict(fitted)
    assert fitted.logits.gate is not None
    np.testing.assert_allclose(predictions.log_odds, fitted.logits.margin)
    np.testing.assert_array_equal(predictions.answered, fitted.logits.gate >= 0)
    np.testing.assert_array_equal(predictions.decision, fitted.logits.margin > 0)


def test_a_gate_without_gate_scores_is_refused(read: EvaluationInputs) -> None:
    gate = dataclasses.replace(read.policies["gate"], logits=read.policies["softmax"].logits)
    edited = dataclasses.replace(read, policies=read.policies | {"gate": gate})
    with pytest.raises(ArtifactError, match="the logits carry no gate scores"):
        evaluate_policies(CONFIG, edited)


def test_where_the_bundled_policy_is_infeasible_another_is_shown(read: EvaluationInputs) -> None:
    without = dataclasses.replace(
        read, policies={"softmax": read.policies["softmax"]}, infeasible={"scrc": "too little data"}
    )
    results = evaluate_policies(CONFIG, without)
    assert list(results.results) == ["softmax"]

"""The policy inside the graph decides as `Policy`: every kind, calibrator and task."""

from typing import Any

import numpy as np
import pytest
import torch

from components.export_bundle.onnx_policy import PolicyModule
from components.shared.calibration import registry
from components.shared.contracts.outcomes import DEFER, Outcomes
from components.shared.policies.policy import GatePolicy, Policy, ScrcPolicy, softmax_policy

TWO, REST = Outcomes.of(("None", "Roadwork")), Outcomes.of(("a", "Roadwork", "c"), "binary")
THREE = Outcomes.of(("a", "b", "c"))
SELECTIVE: dict[str, Any] = {
    "threshold": 0.5,
    "threshold_margin": 0.0,
    "risk": "error",
    "alpha": 0.1,
    "delta": 0.1,
    "coverage_lower_bound": 0.2,
}


def _samples(n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return logits as float32 has them, and labels that follow them."""
    rng = np.random.default_rng(n_classes)
    logits = rng.normal(0, 3, (4000, n_classes)).astype(np.float32)
    labels = (logits + rng.gumbel(0, 2, logits.shape)).argmax(axis=1)
    return logits.astype(np.float64), labels


def _policy(kind: str, outcomes: Outcomes, calibrator: Any) -> Policy:
    given = SELECTIVE | {"kind": kind, "outcomes": outcomes, "calibrator": calibrator}
    if kind == "gate":
        return GatePolicy(**given, gate_slope=2.0, gate_intercept=0.1, answer_from=0.3)
    bounds = (1.0, None, 0.2)[-len(outcomes.names) :]
    if kind == "scrc":
        return ScrcPolicy(**given, answer_from=bounds)
    if kind == "scrc with sets":
        given |= {"kind": "scrc"}
        return ScrcPolicy(**given, answer_from=(0.1,) * len(outcomes.names), single_from=0.7)
    return softmax_policy(outcomes, 0.4, calibrator)


@pytest.mark.parametrize("kind", ["softmax", "gate", "scrc", "scrc with sets"])
@pytest.mark.parametrize("outcomes", [TWO, REST, THREE], ids=["two", "rest", "three"])
@pytest.mark.parametrize("name", [None, *registry.CLASSES])
def test_decisions_and_probabilities_are_those_of_the_policy(
    name: str | None, outcomes: Outcomes, kind: str
) -> None:
    n_classes = len(outcomes.class_names)
    logits, labels = _samples(n_classes)
    calibrator = None if name is None else registry.fit(name, logits[:2000], labels[:2000])
    policy = _policy(kind, outcomes, calibrator)
    extreme = np.array([[80.0, -80.0, 0.0], [-700.0, 700.0, 1.0], [0.0, 0.0, 0.5]])
    logits = np.concatenate([logits[2000:], extreme[:, :n_classes]])
    gate = np.random.default_rng(0).normal(size=len(logits))

    found = PolicyModule(policy)(torch.from_numpy(logits), torch.from_numpy(gate))

    names = [*policy.outcomes.names, DEFER]
    expected, sets = policy.decide(logits, gate), policy.answer_sets(logits)
    single = sets.sum(axis=1) == 1
    codes = found.decision.numpy()
    is_one = codes <= len(names) - 1
    assert [names[code] for code in codes[is_one]] == expected[is_one].tolist()
    np.testing.assert_array_equal(is_one, single | (expected == DEFER))
    np.testing.assert_array_equal(found.members.numpy(), sets)
    np.testing.assert_allclose(
        found.probabilities.numpy(), policy.probabilities(logits), rtol=1e-9, atol=1e-12
    )
    if policy.outcomes.positive is not None:
        np.testing.assert_allclose(
            found.margin.numpy(), policy.margin(logits), rtol=1e-9, atol=1e-9
        )
    assert len(set(expected.tolist())) > 1, "the policy tells no images apart"

"""All policies on the same images of VAL_TEST: compared, promised against achieved, and refused
where they differ.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.evaluate.config import EvaluateConfig
from components.evaluate.step import run
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import write_json, writing
from components.shared.contracts.config import Config
from components.shared.contracts.errors import ArtifactError
from components.shared.policies.logits import Logits, write_logits
from components.shared.policies.policy import GatePolicy, Policy, ScrcPolicy, softmax_policy
from components.shared.stats.risk_coverage import augrc
from tests.bundles import write_dataset
from tests.logits_artifacts import binary_logits

N = 200
PROMISE: dict[str, Any] = {
    "class_names": ("None", "Roadwork"),
    "positive_class": "Roadwork",
    "threshold": 0.5,
    "threshold_margin": 0.0,
    "risk": "error",
    "alpha": 0.1,
    "delta": 0.1,
    "coverage_lower_bound": 0.3,
}
SOFTMAX = softmax_policy(("None", "Roadwork"), "Roadwork", 0.0)
SCRC = ScrcPolicy(kind="scrc", **PROMISE, answer_positive_from=1.0, answer_negative_from=1.0)
GATE = GatePolicy(kind="gate", **PROMISE, gate_slope=1.0, gate_intercept=0.0, answer_from=0.0)


def _logits(gate: bool) -> Logits:
    """Margins right in four of five cases; the gate knows in which."""
    rng = np.random.default_rng(0)
    truth = np.arange(N) % 2 == 1
    wrong = rng.random(N) < 0.2
    margin = np.where(truth ^ wrong, 1, -1) * rng.uniform(0.2, 3, N)
    logits = binary_logits(truth, margin, "VAL_TEST", [f"g{i // 2}" for i in range(N)])
    scores = np.where(wrong, -1, 1) + rng.normal(0, 0.3, N)
    ids = tuple(f"{i:016x}" for i in range(N))
    return dataclasses.replace(
        logits, sample_ids=ids, gate=scores.astype(np.float32) if gate else None
    )


def _write(path: Path, logits: Logits) -> Path:
    with writing(
        path, kind=Kind.logits_of("VAL_TEST"), step="test", config=Config(), split="VAL_TEST"
    ) as out:
        write_logits(out, logits)
    return path


def _policy(path: Path, rule: Policy) -> Path:
    with writing(path, kind="Policy", step="test", config=Config()) as out:
        write_json(out / "policy.json", rule.to_json())
    return path


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    """All input artifacts, with all three policies."""
    write_dataset(tmp_path / "dataset", ("None", "Roadwork"), N)
    return {
        "dataset": tmp_path / "dataset",
        "val_test_logits": _write(tmp_path / "logits", _logits(gate=False)),
        "gate_test_logits": _write(tmp_path / "gate_logits", _logits(gate=True)),
        "softmax_policy": _policy(tmp_path / "softmax", SOFTMAX),
        "gate_policy": _policy(tmp_path / "gate", GATE),
        "scrc_policy": _policy(tmp_path / "scrc", SCRC),
    }


def _evaluate(inputs: dict[str, Path], tmp_path: Path, policy: str = "softmax") -> dict[str, Any]:
    config = EvaluateConfig(n_bootstrap=100, policy=policy)
    run(config, **inputs, evaluation=tmp_path / "out", report=tmp_path / "report.html")
    document: dict[str, Any] = json.loads((tmp_path / "out/eval_report.json").read_text())
    return document


def test_all_policies_are_compared_and_the_asked_one_is_shown(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    document = _evaluate(inputs, tmp_path, "scrc")
    assert document["policy"] == SCRC.to_json()
    assert list(document["policies"]) == sorted(["scrc", "softmax", "gate"])
    logits = _logits(gate=True)
    answered = np.abs(logits.margin) >= 1.0
    wrong = (logits.margin > 0) != (logits.labels == 1)
    metrics = document["policies"]["scrc"]["metrics"]
    assert document["metrics"] == metrics
    assert metrics["exit_rate"]["value"] == pytest.approx(answered.mean())
    assert metrics["exit_accuracy"]["value"] == pytest.approx(1 - wrong[answered].mean())
    assert metrics["exit_error"]["value"] == pytest.approx(wrong[answered].mean())
    positives = logits.labels == 1
    assert metrics["deferred_positives"]["value"] == pytest.approx((~answered)[positives].mean())
    assert metrics["exit_fnr"]["value"] == pytest.approx(
        (logits.margin <= 0)[answered & positives].mean()
    )
    assert metrics["exit_rate"]["interval_95"] is not None
    assert document["policies"]["softmax"]["metrics"]["exit_rate"]["value"] == 1


def test_a_gate_that_knows_more_is_recommended(inputs: dict[str, Path], tmp_path: Path) -> None:
    document = _evaluate(inputs, tmp_path, "gate")
    against = document["against_confidence"]
    assert against.keys() == {"gate"}
    assert against["gate"]["better"]
    assert against["gate"]["interval_95"][1] < 0
    logits = _logits(gate=True)
    wrong = (logits.margin > 0) != (logits.labels == 1)
    assert logits.gate is not None
    expected = augrc(logits.gate.astype(np.float64), wrong) - augrc(np.abs(logits.margin), wrong)
    assert against["gate"]["difference"] == pytest.approx(expected)
    html = (tmp_path / "report.html").read_text()
    assert "error rate ≤ 0.1, sure to 0.9" in html
    assert "not recommended" not in html
    assert "Shaded: 95 % interval. Dots: where a policy works." in html
    assert "deferring what it is unsure about" in html


def test_a_gate_that_knows_nothing_is_not(inputs: dict[str, Path], tmp_path: Path) -> None:
    blind = np.random.default_rng(3).normal(size=N).astype(np.float32)
    path = _write(tmp_path / "blind", dataclasses.replace(_logits(gate=True), gate=blind))
    document = _evaluate(inputs | {"gate_test_logits": path}, tmp_path)
    assert not document["against_confidence"]["gate"]["better"]
    assert (
        "gate: ranks no better, for sure, than the model" in (tmp_path / "report.html").read_text()
    )


def test_an_infeasible_policy_is_shown_as_such(inputs: dict[str, Path], tmp_path: Path) -> None:
    with writing(tmp_path / "none", kind="Policy", step="test", config=Config()) as out:
        write_json(
            out / "infeasible.json",
            {"kind": "scrc", "reason": "alpha=0.01 is too low", "best_level": 0.2},
        )
    document = _evaluate(inputs | {"scrc_policy": tmp_path / "none"}, tmp_path)
    assert document["policies"]["scrc"] == {"infeasible": "alpha=0.01 is too low"}
    assert "infeasible: alpha=0.01 is too low" in (tmp_path / "report.html").read_text()
    with pytest.raises(
        ArtifactError, match="policy='scrc' cannot be evaluated, its target is infeas"
    ):
        _evaluate(inputs | {"scrc_policy": tmp_path / "none"}, tmp_path, "scrc")


def test_parts_that_do_not_belong_together_are_refused(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match="holds a policy of kind 'scrc', expected 'gate'"):
        _evaluate(inputs | {"gate_policy": inputs["scrc_policy"]}, tmp_path)
    with pytest.raises(ArtifactError, match="the logits carry no gate scores"):
        _evaluate(inputs | {"gate_test_logits": inputs["val_test_logits"]}, tmp_path)
    logits = _logits(gate=True)
    other = dataclasses.replace(logits, sample_ids=tuple(reversed(logits.sample_ids)))
    with pytest.raises(ArtifactError, match="hold different samples"):
        _evaluate(inputs | {"gate_test_logits": _write(tmp_path / "other", other)}, tmp_path)
    del inputs["gate_policy"]
    with pytest.raises(
        ArtifactError, match="policy='gate' cannot be evaluated, no such policy was given"
    ):
        _evaluate(inputs, tmp_path, "gate")
    assert not (tmp_path / "out").exists()

"""The gate's policy: both constraints certified, or the reason why not."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.calibrate_gate.config import CalibrateGateConfig
from components.calibrate_gate.step import run
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import writing
from components.shared.contracts.config import Config
from components.shared.contracts.errors import ArtifactError, LeakageViolationError
from components.shared.policies.logits import Logits, write_logits
from components.shared.policies.policy import GatePolicy, Infeasible
from components.shared.policies.policy_artifact import read_policy, read_policy_or_infeasible
from tests.logits_artifacts import binary_logits, logits_artifact, multiclass_logits


def _config(**changes: Any) -> CalibrateGateConfig:
    return CalibrateGateConfig(**({"policy": "gate", "calibrator": "temperature"} | changes))


def _logits(count: int, seed: int = 0, split: str = "VAL_CALIB", noise: float = 1.0) -> Logits:
    """A fifth of the answers are wrong; margins do not know which, gate scores do, more or less."""
    rng = np.random.default_rng(seed)
    truth, wrong = rng.random(count) < 0.5, rng.random(count) < 0.2
    margin = rng.normal(2, 0.5, count) * np.where(truth ^ wrong, 1, -1)
    gate = (3 * np.where(wrong, -1, 1) + rng.normal(0, noise, count)).astype(np.float32)
    return dataclasses.replace(
        binary_logits(truth, margin, split, [f"g{i}" for i in range(count)]), gate=gate
    )


def _artifact(path: Path, logits: Logits) -> Path:
    kind = Kind.logits_of(logits.split)
    with writing(path, kind=kind, step="test", config=Config(), split=logits.split) as out:
        write_logits(out, logits)
    return path


def test_risk_and_coverage_hold_on_fresh_data(tmp_path: Path) -> None:
    logits = _artifact(tmp_path / "logits", _logits(2000))
    run(_config(min_coverage=0.7), val_calib_logits=logits, gate_policy=tmp_path / "policy")
    policy, _ = read_policy(tmp_path / "policy")
    assert isinstance(policy, GatePolicy)
    fresh = _logits(50_000, seed=9)
    assert fresh.gate is not None
    answered = policy.answers(fresh.logits, fresh.gate)
    wrong = policy.decision(fresh.logits) != (fresh.labels == 1)
    assert wrong[answered].mean() <= 0.05
    assert 0.7 <= policy.coverage_lower_bound <= answered.mean()
    fit = json.loads((tmp_path / "policy/fit.json").read_text())
    assert fit["augrc_of_gate"] < fit["augrc_of_confidence"]
    assert fit["n_calibration_groups"] == 1400


def test_the_gate_scale_is_the_log_odds_of_being_right(tmp_path: Path) -> None:
    logits = _artifact(tmp_path / "logits", _logits(20_000, noise=3.0))
    run(_config(alpha=0.15), val_calib_logits=logits, gate_policy=tmp_path / "policy")
    policy, _ = read_policy(tmp_path / "policy")
    assert isinstance(policy, GatePolicy)
    # Two normals of variance 9 around -3 and 3 with weights .2 and .8: log-odds 6 / 9 * score + ln
    # 4.
    assert policy.gate_slope == pytest.approx(2 / 3, abs=0.05)
    assert policy.gate_intercept == pytest.approx(np.log(4), abs=0.1)


def test_a_gate_that_knows_nothing_is_infeasible(tmp_path: Path) -> None:
    logits = _logits(1000)
    assert logits.gate is not None
    blind = np.random.default_rng(1).normal(size=1000).astype(np.float32)
    path = _artifact(tmp_path / "logits", dataclasses.replace(logits, gate=blind))
    run(_config(), val_calib_logits=path, gate_policy=tmp_path / "policy")
    found, _ = read_policy_or_infeasible(tmp_path / "policy")
    assert isinstance(found, Infeasible)
    assert re.search(r"best certifiable level is 0\.[12]\d+", found.reason)


@pytest.mark.parametrize("n_groups", [2, 8, 40])
def test_few_groups_of_a_class_are_a_result(tmp_path: Path, n_groups: int) -> None:
    """One group has all images of a class, so that the tuning part often lacks it."""
    logits = _logits(400)
    groups = tuple(
        "works" if label else f"g{row % (n_groups - 1)}"
        for row, label in enumerate(logits.labels.tolist())
    )
    path = _artifact(tmp_path / "logits", dataclasses.replace(logits, groups=groups))
    for seed in range(4):
        policy = tmp_path / f"policy{seed}"
        run(_config(seed=seed), val_calib_logits=path, gate_policy=policy)
        read_policy_or_infeasible(policy)


def test_logits_without_a_gate_or_of_another_split_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="use the logits of train_gate"):
        run(
            _config(),
            val_calib_logits=logits_artifact(tmp_path / "plain"),
            gate_policy=tmp_path / "policy",
        )
    test = _artifact(tmp_path / "test", _logits(100, split="VAL_TEST"))
    with pytest.raises(LeakageViolationError):
        run(_config(), val_calib_logits=test, gate_policy=tmp_path / "policy")


def test_the_error_of_several_classes_is_certified(tmp_path: Path) -> None:
    def draw(count: int, seed: int) -> Logits:
        logits = multiclass_logits(count, "VAL_CALIB", seed=seed)
        wrong = logits.logits.argmax(axis=1) != logits.labels
        noise = np.random.default_rng(seed).normal(0, 1, count)
        return dataclasses.replace(
            logits, gate=(3 * np.where(wrong, -1, 1) + noise).astype(np.float32)
        )

    path = _artifact(tmp_path / "logits", draw(2000, 0))
    run(_config(), val_calib_logits=path, gate_policy=tmp_path / "policy")
    policy, _ = read_policy(tmp_path / "policy")
    assert isinstance(policy, GatePolicy)
    fresh = draw(50_000, 9)
    assert fresh.gate is not None
    answered = policy.answers(fresh.logits, fresh.gate)
    wrong = policy.decision(fresh.logits) != fresh.labels
    assert wrong[answered].mean() <= 0.05 < wrong.mean()
    assert policy.coverage_lower_bound <= answered.mean()
    assert set(policy.decide(fresh.logits, fresh.gate).tolist()) == {*"abcd", "defer"}


def test_a_false_negative_rate_of_several_classes_is_infeasible(tmp_path: Path) -> None:
    logits = multiclass_logits(200, "VAL_CALIB")
    scored = dataclasses.replace(logits, gate=np.zeros(200, dtype=np.float32))
    path = _artifact(tmp_path / "logits", scored)
    run(_config(risk="fnr"), val_calib_logits=path, gate_policy=tmp_path / "policy")
    found, _ = read_policy_or_infeasible(tmp_path / "policy")
    assert isinstance(found, Infeasible)
    assert "risk='fnr' needs task=binary" in found.reason

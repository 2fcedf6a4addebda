"""The confidence threshold of a multiclass policy."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from components.fit_threshold.config import FitThresholdConfig
from components.fit_threshold.step import run
from components.shared.contracts.artifacts import sha256_file, verify_dir
from components.shared.policies.policy import Infeasible
from components.shared.policies.policy_artifact import read_policy, read_policy_or_infeasible
from tests.logits_artifacts import multiclass_artifact, multiclass_logits


def test_it_answers_from_the_least_confidence_within_alpha(tmp_path: Path) -> None:
    logits = multiclass_logits(600, "VAL_CALIB")
    artifact = multiclass_artifact(tmp_path / "logits", logits)
    config = FitThresholdConfig(n_bootstrap=200, alpha=0.05)
    run(config, val_calib_logits=artifact, policy=tmp_path / "policy")
    policy, _ = read_policy(tmp_path / "policy")
    assert policy.outcomes.task == "multiclass"
    answered = policy.answers(logits.logits)
    wrong = logits.logits.argmax(axis=1) != logits.labels
    fit = json.loads((tmp_path / "policy/fit.json").read_text())
    assert fit["coverage"] == pytest.approx(answered.mean())
    assert fit["error_rate"] == pytest.approx(wrong[answered].mean())
    assert wrong[answered].mean() <= 0.05 < wrong.mean()
    low, high = fit["best_threshold_interval_95"]
    assert 0 < low <= policy.threshold <= high < 1

    with (tmp_path / "policy/threshold_sweep.csv").open(newline="") as stream:
        rows = [[float(value) for value in row.values()] for row in csv.DictReader(stream)]
    assert len(rows) == len(np.unique(policy.confidence(logits.logits)))
    assert rows[0][1:] == [1.0, pytest.approx(wrong.mean())]
    # No rule with a larger coverage is within alpha.
    assert all(error > 0.05 for _, coverage, error in rows if coverage > answered.mean() + 1e-9)

    said = policy.decide(logits.logits)
    names = np.array(policy.class_names)[logits.logits.argmax(axis=1)]
    assert (said == np.where(answered, names, "defer")).all()

    run(config, val_calib_logits=artifact, policy=tmp_path / "again")
    for name in verify_dir(tmp_path / "policy", "Policy").files:
        assert sha256_file(tmp_path / "policy" / name) == sha256_file(tmp_path / "again" / name)


def test_a_model_within_alpha_answers_everything(tmp_path: Path) -> None:
    logits = multiclass_logits(200, "VAL_CALIB")
    artifact = multiclass_artifact(tmp_path / "logits", logits)
    config = FitThresholdConfig(n_bootstrap=100, alpha=0.9)
    run(config, val_calib_logits=artifact, policy=tmp_path / "policy")
    policy, _ = read_policy(tmp_path / "policy")
    assert policy.threshold == pytest.approx(1 / 4)
    assert policy.answers(np.vstack([logits.logits, np.zeros((1, 4))])).all()


def test_what_no_confidence_reaches_is_infeasible_with_the_lowest_level(tmp_path: Path) -> None:
    logits = multiclass_logits(300, "VAL_CALIB", scale=-1.0)
    artifact = multiclass_artifact(tmp_path / "logits", logits)
    run(FitThresholdConfig(n_bootstrap=100), val_calib_logits=artifact, policy=tmp_path / "policy")
    found, _ = read_policy_or_infeasible(tmp_path / "policy")
    assert isinstance(found, Infeasible)
    assert "no confidence has an error rate of at most alpha=0.05" in found.reason
    assert "the lowest is 0." in found.reason


def test_a_limit_of_the_false_negative_rate_needs_a_binary_task(tmp_path: Path) -> None:
    artifact = multiclass_artifact(tmp_path / "logits", multiclass_logits(50, "VAL_CALIB"))
    config = FitThresholdConfig(n_bootstrap=100, max_fnr=0.1)
    run(config, val_calib_logits=artifact, policy=tmp_path / "policy")
    found, _ = read_policy_or_infeasible(tmp_path / "policy")
    assert isinstance(found, Infeasible)
    assert "max_fnr=0.1 needs task=binary" in found.reason
    one = FitThresholdConfig(n_bootstrap=100, task="binary", positive_class="b")
    run(one, val_calib_logits=artifact, policy=tmp_path / "binary")
    policy, _ = read_policy(tmp_path / "binary")
    assert policy.outcomes.names == ("not b", "b")

"""Phase 2 alone: what it writes, what it refuses."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from components.compare_calibrators.config import CompareCalibratorsConfig
from components.compare_calibrators.step import run as compare_calibrators
from components.fit_threshold.config import FitThresholdConfig
from components.fit_threshold.step import run
from components.shared.calibration.linear import Platt
from components.shared.contracts.artifacts import sha256_file, verify_dir
from components.shared.contracts.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    LeakageViolationError,
)
from components.shared.policies.policy import Infeasible
from components.shared.policies.policy_artifact import read_policy, read_policy_or_infeasible
from components.shared.stats.metrics import Bools
from tests.components.shared.stats.cal40 import MARGIN, TRUTH
from tests.logits_artifacts import logits_artifact

CONFIG = FitThresholdConfig(n_bootstrap=200)


def _reason(path: Path) -> str:
    found, _ = read_policy_or_infeasible(path)
    assert isinstance(found, Infeasible)
    assert found.kind == "softmax"
    return found.reason


def test_the_policy_decides_as_the_chosen_threshold(tmp_path: Path) -> None:
    run(CONFIG, val_calib_logits=logits_artifact(tmp_path / "logits"), policy=tmp_path / "policy")
    policy, manifest = read_policy(tmp_path / "policy")
    assert policy.threshold_margin == pytest.approx(-1.431, abs=1e-6)
    assert set(manifest.files) == {
        "policy.json",
        "fit.json",
        "threshold_sweep.csv",
        "threshold.png",
    }
    decided = policy.decide(np.column_stack([np.zeros(40), MARGIN])) == "Roadwork"
    assert (decided == (MARGIN > -1.431)).all()
    fit = json.loads((tmp_path / "policy/fit.json").read_text())
    # The best on these samples is 0.8958, at -1.605.
    assert fit["objective_value"] == pytest.approx(0.8498, abs=1e-4)
    assert (fit["max_fnr_delta"], fit["fnr_upper_bound"]) == (None, None)
    low, high = fit["best_threshold_interval_95"]
    assert 0 < low <= policy.threshold <= high < 1


def test_resamples_without_a_class_have_no_threshold(tmp_path: Path) -> None:
    """All roadwork is in one of three groups, which a third of the resamples lack."""
    groups = ["a" if positive else "bc"[i % 2] for i, positive in enumerate(TRUTH)]
    logits = logits_artifact(tmp_path / "logits", groups=groups)
    run(CONFIG, val_calib_logits=logits, policy=tmp_path / "policy")
    fit = json.loads((tmp_path / "policy/fit.json").read_text())
    assert fit["best_threshold_interval_95"] is None


def test_the_sweep_table_holds_every_rule(tmp_path: Path) -> None:
    run(CONFIG, val_calib_logits=logits_artifact(tmp_path / "logits"), policy=tmp_path / "policy")
    with (tmp_path / "policy/threshold_sweep.csv").open(newline="") as stream:
        rows = [
            {name: float(value) for name, value in row.items()} for row in csv.DictReader(stream)
        ]
    assert len(rows) == len(np.unique(MARGIN)) + 1
    assert max(row["objective"] for row in rows) == pytest.approx(0.8958064164776166)
    assert [rows[0]["false_negative_rate"], rows[-1]["false_negative_rate"]] == [0, 1]
    assert [row["threshold"] for row in rows] == sorted(row["threshold"] for row in rows)


def test_same_input_same_bytes(tmp_path: Path) -> None:
    logits = logits_artifact(tmp_path / "logits")
    for name in ("a", "b"):
        run(CONFIG, val_calib_logits=logits, policy=tmp_path / name)
    names = verify_dir(tmp_path / "a", "Policy").files
    assert [sha256_file(tmp_path / "a" / n) for n in names] == [
        sha256_file(tmp_path / "b" / n) for n in names
    ]


def test_a_ceiling_of_the_false_negative_rate_is_kept(tmp_path: Path) -> None:
    config = FitThresholdConfig(max_fnr=0.0, n_bootstrap=200)
    run(config, val_calib_logits=logits_artifact(tmp_path / "logits"), policy=tmp_path / "policy")
    policy, _ = read_policy(tmp_path / "policy")
    assert (MARGIN[TRUTH] > policy.threshold_margin).all()


def test_an_impossible_ceiling_is_infeasible(tmp_path: Path) -> None:
    truth, margin = np.arange(40) % 2 == 0, np.where(np.arange(40) % 2 == 0, 1.0, 2.0)
    margin[0] = 0.0
    logits = logits_artifact(tmp_path / "logits", truth, margin)
    run(FitThresholdConfig(max_fnr=0.01), val_calib_logits=logits, policy=tmp_path / "policy")
    reason = _reason(tmp_path / "policy")
    assert "lowest false negative rate of a separating threshold is 0.05" in reason


def test_other_splits_are_refused(tmp_path: Path) -> None:
    """VAL_TEST logits, and VAL_TEST logits under a manifest that claims VAL_CALIB."""
    for name, claimed in (("honest", "VAL_TEST"), ("relabelled", "VAL_CALIB")):
        logits = logits_artifact(tmp_path / name, split="VAL_TEST", claimed=claimed)
        with pytest.raises(
            LeakageViolationError,
            match="holds split 'VAL_TEST', this step may only see 'VAL_CALIB'",
        ):
            run(CONFIG, val_calib_logits=logits, policy=tmp_path / "policy")
    assert not (tmp_path / "policy").exists()


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (
            np.ones(40, bool),
            "has 40 samples of 'Roadwork' and 0 others, a threshold needs at least 3 of each",
        ),
        (np.zeros(40, bool), "has 0 samples of 'Roadwork' and 40 others"),
        (np.arange(40) < 2, "has 2 samples of 'Roadwork' and 38 others"),
        (np.array([True]), "has 1 samples of 'Roadwork' and 0 others"),
    ],
)
def test_one_class_or_too_few_samples_are_infeasible(
    tmp_path: Path, truth: Bools, message: str
) -> None:
    logits = logits_artifact(tmp_path / "logits", truth, MARGIN[: len(truth)])
    run(CONFIG, val_calib_logits=logits, policy=tmp_path / "policy")
    assert message in _reason(tmp_path / "policy")


def test_an_unknown_class_is_refused(tmp_path: Path) -> None:
    config = FitThresholdConfig(positive_class="Roadworks")
    with pytest.raises(DataError, match="positive_class='Roadworks' is not in"):
        run(
            config,
            val_calib_logits=logits_artifact(tmp_path / "logits"),
            policy=tmp_path / "policy",
        )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"objective": "accuracy"},
            "objective='accuracy' must be one of mcc, f1, balanced_accuracy",
        ),
        ({"max_fnr": 1.5}, "max_fnr=1.5 must be <= 1"),
        ({"max_fnr": "0.1"}, "max_fnr='0.1' must be float"),
        ({"n_bootstrap": 3}, "n_bootstrap=3 must be >= 100"),
        ({"max_frn": 0.1}, "unknown key 'max_frn', did you mean 'max_fnr'"),
    ],
)
def test_wrong_parameters_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FitThresholdConfig.from_mapping(values)


def test_the_threshold_is_on_the_calibrated_probability(tmp_path: Path) -> None:
    logits = logits_artifact(tmp_path / "logits")
    calibration = tmp_path / "calibration"
    compare_calibrators(
        CompareCalibratorsConfig(n_bootstrap=100, calibrator="platt"),
        val_calib_logits=logits,
        calibration=calibration,
    )
    run(CONFIG, val_calib_logits=logits, policy=tmp_path / "policy", calibration=calibration)
    policy, _ = read_policy(tmp_path / "policy")
    assert isinstance(policy.calibrator, Platt)
    (slope,), (intercept,) = policy.calibrator.slope, policy.calibrator.intercept
    assert policy.threshold_margin == pytest.approx(slope * -1.431 + intercept, abs=1e-5)
    decided = policy.decide(np.column_stack([np.zeros(40), MARGIN])) == "Roadwork"
    assert (decided == (MARGIN > -1.431)).all()
    other = logits_artifact(tmp_path / "other", TRUTH, MARGIN + 1)
    with pytest.raises(ArtifactError, match="was fitted on other logits"):
        run(CONFIG, val_calib_logits=other, policy=tmp_path / "policy", calibration=calibration)

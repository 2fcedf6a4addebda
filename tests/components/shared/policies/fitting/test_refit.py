"""A policy that is fitted again on the logits of another form of its model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.calibrate_gate.config import CalibrateGateConfig
from components.calibrate_gate.step import run as calibrate_gate
from components.calibrate_scrc.config import CalibrateScrcConfig
from components.calibrate_scrc.step import run as calibrate_scrc
from components.fit_threshold.config import FitThresholdConfig
from components.fit_threshold.step import run as fit_threshold
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import read_manifest, writing
from components.shared.contracts.config import Config
from components.shared.policies.fitting.fitted import CertifiedPolicy, FittedPolicy
from components.shared.policies.fitting.refit import refit
from components.shared.policies.logits import Logits, write_logits
from components.shared.policies.policy import Infeasible
from components.shared.policies.policy_artifact import read_policy
from tests.logits_artifacts import binary_logits, multiclass_logits

_SELECTIVE: dict[str, Any] = {"alpha": 0.1, "positive_class": "Roadwork"}


def _binary(seed: int = 0) -> Logits:
    rng = np.random.default_rng(seed)
    margin = rng.normal(size=600) * 3
    truth = rng.random(600) < 1 / (1 + np.exp(-1.5 * margin))
    logits = binary_logits(truth, margin, "VAL_CALIB", [f"g{i}" for i in range(600)])
    return replace(logits, gate=np.abs(margin).astype(np.float32))


def _fit(tmp_path: Path, kind: str, logits: Logits) -> Path:
    artifact, path = tmp_path / "logits", tmp_path / kind
    with writing(
        artifact, kind=Kind.logits_of("VAL_CALIB"), step="test", config=Config(), split="VAL_CALIB"
    ) as out:
        write_logits(out, logits)
    if kind == "scrc":
        scrc = CalibrateScrcConfig(**_SELECTIVE)
        calibrate_scrc(scrc, val_calib_logits=artifact, scrc_policy=path)
    elif kind == "gate":
        gate = CalibrateGateConfig(**_SELECTIVE)
        calibrate_gate(gate, val_calib_logits=artifact, gate_policy=path)
    else:
        limit = {"max_fnr": 0.2, "max_fnr_delta": 0.1} if len(logits.class_names) == 2 else {}
        softmax = FitThresholdConfig(n_bootstrap=100, alpha=0.1, **limit)
        fit_threshold(softmax, val_calib_logits=artifact, policy=path)
    return path


@pytest.mark.parametrize("kind", ["softmax", "gate", "scrc"])
def test_on_the_same_logits_it_is_the_same_policy(tmp_path: Path, kind: str) -> None:
    logits = _binary()
    path = _fit(tmp_path, kind, logits)
    policy, manifest = read_policy(path)
    found = refit(policy, manifest.config, logits)
    assert isinstance(found, FittedPolicy)
    assert found.policy == policy
    assert isinstance(found, CertifiedPolicy) == (kind != "softmax")


@pytest.mark.parametrize("kind", ["softmax", "gate", "scrc"])
def test_the_limit_holds_on_the_other_logits(tmp_path: Path, kind: str) -> None:
    logits = _binary()
    policy, manifest = read_policy(_fit(tmp_path, kind, logits))
    shifted = replace(logits, logits=logits.logits + np.float32([0, 2]))
    found = refit(policy, manifest.config, shifted)
    assert isinstance(found, FittedPolicy)
    # The old threshold on shifted logits would call more images positive.
    old, new = (p.decision(shifted.logits) for p in (policy, found.policy))
    assert old.mean() > new.mean()
    expected = policy.decision(logits.logits)
    assert (new == expected).mean() > 0.95
    if kind == "softmax":
        assert found.fit["fnr_upper_bound"] <= 0.2


@pytest.mark.parametrize("kind", ["softmax", "gate", "scrc"])
def test_a_form_that_has_forgotten_everything_is_infeasible(tmp_path: Path, kind: str) -> None:
    logits = _binary()
    policy, manifest = read_policy(_fit(tmp_path, kind, logits))
    forgot = replace(
        logits, logits=np.zeros_like(logits.logits), gate=np.zeros(600, dtype=np.float32)
    )
    assert isinstance(refit(policy, manifest.config, forgot), Infeasible)


def test_several_classes_are_fitted_again_by_their_error_rate(tmp_path: Path) -> None:
    logits = multiclass_logits(600, "VAL_CALIB")
    policy, manifest = read_policy(_fit(tmp_path, "softmax", logits))
    found = refit(policy, manifest.config, logits)
    assert isinstance(found, FittedPolicy)
    assert found.policy == policy
    assert found.fit["error_rate"] <= 0.1
    assert read_manifest(tmp_path / "softmax").config == manifest.config

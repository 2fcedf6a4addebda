"""Phase 5 alone: what it promises, what it writes, what it refuses."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.calibrate_scrc.config import CalibrateScrcConfig
from components.calibrate_scrc.step import run
from components.shared.contracts.artifacts import sha256_file, verify_dir
from components.shared.contracts.errors import (
    ConfigError,
    DataError,
    LeakageViolationError,
)
from components.shared.policies.policy import Infeasible, ScrcPolicy
from components.shared.policies.policy_artifact import read_policy, read_policy_or_infeasible
from components.shared.stats.metrics import Bools, Floats, sigmoid
from tests.logits_artifacts import binary_logits, logits_artifact


def _config(**changes: Any) -> CalibrateScrcConfig:
    return CalibrateScrcConfig(**({"policy": "scrc", "calibrator": "temperature"} | changes))


def _samples(count: int, seed: int = 0, scale: float = 4.0) -> tuple[Bools, Floats]:
    """Log-odds twice as extreme as the truth; the larger the scale, the easier."""
    rng = np.random.default_rng(seed)
    margin = rng.normal(size=count) * scale
    return rng.random(count) < sigmoid(margin / 2), margin


def _fitted(path: Path) -> ScrcPolicy:
    policy = read_policy(path)[0]
    assert isinstance(policy, ScrcPolicy)
    return policy


def _reason(path: Path) -> str:
    found, _ = read_policy_or_infeasible(path)
    assert isinstance(found, Infeasible)
    return found.reason


def _answered(
    policy: ScrcPolicy, count: int = 200_000
) -> tuple[float, float, Floats, Bools, Bools]:
    """(coverage, risk) on fresh data, and margin, truth, answered."""
    truth, margin = _samples(count, seed=99)
    logits = binary_logits(truth, margin, "VAL_TEST").logits
    answered = policy.answers(logits)
    error = policy.decision(logits) != truth
    return float(answered.mean()), float(error[answered].mean()), margin, truth, answered


def test_the_promise_holds_on_fresh_data(tmp_path: Path) -> None:
    logits = logits_artifact(tmp_path / "logits", *_samples(4000))
    run(_config(), val_calib_logits=logits, scrc_policy=tmp_path / "policy")
    policy = _fitted(tmp_path / "policy")
    coverage, risk, *_ = _answered(policy)
    assert risk <= 0.05
    assert policy.coverage_lower_bound <= coverage
    assert coverage > 0.2
    fit = json.loads((tmp_path / "policy/fit.json").read_text())
    assert fit["n_calibration_groups"] == 1400
    assert fit["n_tuning_images"] == 1200
    assert fit["certificates"]["all"]["p_value"] <= 0.1
    assert fit["certificates"]["all"]["risk_upper_bound"] <= 0.05 + 1e-9
    assert policy.calibrator is not None
    assert policy.calibrator.to_json()["temperature"] == pytest.approx(2, abs=0.4)


def test_same_input_same_bytes(tmp_path: Path) -> None:
    logits = logits_artifact(tmp_path / "logits", *_samples(1500))
    for name in ("a", "b"):
        run(
            _config(calibrator="auto", alpha=0.15),
            val_calib_logits=logits,
            scrc_policy=tmp_path / name,
        )
    names = verify_dir(tmp_path / "a", "Policy").files
    assert [sha256_file(tmp_path / "a" / n) for n in names] == [
        sha256_file(tmp_path / "b" / n) for n in names
    ]


def test_the_false_negative_rate_can_be_the_risk(tmp_path: Path) -> None:
    logits = logits_artifact(tmp_path / "logits", *_samples(4000))
    run(_config(risk="fnr", alpha=0.1), val_calib_logits=logits, scrc_policy=tmp_path / "policy")
    policy = _fitted(tmp_path / "policy")
    _, _, margin, truth, answered = _answered(policy)
    positives = answered & truth
    assert positives.sum() > 1000
    assert (margin[positives] <= 0).mean() <= 0.1


def test_each_answer_may_be_limited_apart(tmp_path: Path) -> None:
    truth, margin = _samples(8000)
    logits = logits_artifact(tmp_path / "logits", truth, margin)
    run(
        _config(class_wise=True, alpha=0.08),
        val_calib_logits=logits,
        scrc_policy=tmp_path / "policy",
    )
    policy = _fitted(tmp_path / "policy")
    assert len(set(policy.answer_from)) == 2
    _, _, margin, truth, answered = _answered(policy)
    for said in (True, False):
        rows = answered & ((margin > 0) == said)
        assert (truth[rows] != said).mean() <= 0.08
    fit = json.loads((tmp_path / "policy/fit.json").read_text())
    assert fit["certificates"].keys() == {"Roadwork", "None"}


@pytest.mark.parametrize("accuracy", [0.98, 1.0])
@pytest.mark.parametrize("count", [300, 1000])
def test_class_wise_coverage_of_separable_data_is_a_share_of_all_images(
    tmp_path: Path, accuracy: float, count: int
) -> None:
    rng = np.random.default_rng(count)
    truth = rng.random(count) < 0.4
    decision = truth ^ (rng.random(count) > accuracy)
    margin = np.where(decision, 1, -1) * rng.uniform(2, 6, count)
    groups = [f"g{row}" for row in range(count)]
    logits = logits_artifact(tmp_path / "logits", truth, margin, groups=groups)
    config = _config(class_wise=True, alpha=0.1)
    run(config, val_calib_logits=logits, scrc_policy=tmp_path / "policy")
    policy = _fitted(tmp_path / "policy")
    assert np.isfinite(policy.answer_from).all()
    fit = json.loads((tmp_path / "policy/fit.json").read_text())
    assert fit["attempt"] == 0
    assert 0.9 < fit["coverage"] <= 1
    assert 0 <= policy.coverage_lower_bound <= fit["coverage"]


def test_copies_in_a_group_add_no_certainty(tmp_path: Path) -> None:
    """Thirty places with forty equal frames each: 1,200 images, but too few independent ones."""
    truth, margin = _samples(30, scale=40.0)
    groups = [f"place{i // 40}" for i in range(1200)]
    logits = logits_artifact(
        tmp_path / "logits", np.repeat(truth, 40), np.repeat(margin, 40), groups=groups
    )
    run(_config(attempt=4), val_calib_logits=logits, scrc_policy=tmp_path / "policy")
    reason = _reason(tmp_path / "policy")
    assert "with 21 independent groups (at least 45 without an error are needed)" in reason
    assert "more than 65 groups in VAL_CALIB" in reason
    assert "Trying other seeds until one certifies voids the guarantee; this is attempt 4" in reason


def test_a_risk_per_image_needs_a_limit_of_the_groups(tmp_path: Path) -> None:
    """Every tenth place has twelve images, the others one, and the large ones are wrong."""
    truth, margin = _samples(2000, scale=40.0)
    large = np.arange(2000) % 10 == 0
    truth = np.where(large, margin < 0, margin > 0)
    repeats = np.where(large, 12, 1)
    groups = np.repeat([f"place{row:04d}" for row in range(2000)], repeats)
    logits = logits_artifact(
        tmp_path / "logits", np.repeat(truth, repeats), np.repeat(margin, repeats), groups=groups
    )
    # A tenth of the places, but more than half of the images are wrong.
    config = _config(alpha=0.15, max_group_images=12)
    run(config, val_calib_logits=logits, scrc_policy=tmp_path / "per_image")
    assert "cannot be certified" in _reason(tmp_path / "per_image")
    config = _config(alpha=0.15, max_group_images=11)
    run(config, val_calib_logits=logits, scrc_policy=tmp_path / "too_large")
    assert "VAL_CALIB has a group of 12 images" in _reason(tmp_path / "too_large")


def test_a_certified_risk_per_image_is_written_as_such(tmp_path: Path) -> None:
    truth, margin = _samples(4000)
    logits = logits_artifact(tmp_path / "logits", truth, margin)
    config = _config(alpha=0.08, max_group_images=4)
    run(config, val_calib_logits=logits, scrc_policy=tmp_path / "policy")
    policy = _fitted(tmp_path / "policy")
    assert policy.max_group_images == 4
    assert policy.coverage_lower_bound == 0
    coverage, risk, *_ = _answered(policy)
    assert risk <= 0.08
    assert coverage > 0.2
    fit = json.loads((tmp_path / "policy/fit.json").read_text())
    assert fit["guarantee"].startswith("for a random image; groups are")
    assert fit["certificates"]["all"]["risk_upper_bound"] is None


def test_an_unreachable_target_is_a_result_with_the_best_level(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    logits = logits_artifact(tmp_path / "logits", rng.random(600) < 0.5, rng.normal(size=600))
    run(_config(), val_calib_logits=logits, scrc_policy=tmp_path / "policy")
    found, _ = read_policy_or_infeasible(tmp_path / "policy")
    assert isinstance(found, Infeasible)
    assert found.best_level is not None
    assert 0.3 < found.best_level < 0.7
    assert re.match(r"alpha=0.05 cannot be certified .* level is 0\.[3-6]\d+", found.reason)


def test_a_coverage_out_of_reach_is_infeasible(tmp_path: Path) -> None:
    logits = logits_artifact(tmp_path / "logits", *_samples(4000))
    run(_config(min_coverage=0.99), val_calib_logits=logits, scrc_policy=tmp_path / "policy")
    reason = _reason(tmp_path / "policy")
    assert re.search(r"lower bound 0\.\d+ is below min_coverage=0.99", reason)


def test_bad_inputs_are_refused(tmp_path: Path) -> None:
    test = logits_artifact(tmp_path / "test", split="VAL_TEST")
    with pytest.raises(LeakageViolationError):
        run(_config(), val_calib_logits=test, scrc_policy=tmp_path / "policy")
    known = logits_artifact(tmp_path / "known")
    with pytest.raises(DataError, match="positive_class='Works' is not in"):
        run(
            _config(positive_class="Works"), val_calib_logits=known, scrc_policy=tmp_path / "policy"
        )
    assert not (tmp_path / "policy").exists()


def test_few_groups_or_one_class_are_a_result(tmp_path: Path) -> None:
    few = logits_artifact(tmp_path / "few", *_samples(40), groups=["a", "b"] * 20)
    run(_config(), val_calib_logits=few, scrc_policy=tmp_path / "of_two")
    assert "VAL_CALIB has 2 group(s)" in _reason(tmp_path / "of_two")
    one = logits_artifact(tmp_path / "one", np.ones(40, bool), np.arange(40.0))
    run(_config(), val_calib_logits=one, scrc_policy=tmp_path / "of_one")
    assert "cannot be certified" in _reason(tmp_path / "of_one")


def test_a_tuning_part_without_a_class_leaves_the_logits_uncalibrated(tmp_path: Path) -> None:
    """One group has all positive images: where it is tested, the tuning part has none."""
    truth, margin = _samples(600, scale=40.0)
    truth = np.arange(600) < 20
    margin = np.where(truth, np.abs(margin), -np.abs(margin))
    groups = ["works" if label else f"g{row}" for row, label in enumerate(truth.tolist())]
    logits = logits_artifact(tmp_path / "logits", truth, margin, groups=groups)
    found = set()
    for seed in range(8):
        path = tmp_path / f"policy{seed}"
        run(_config(seed=seed), val_calib_logits=logits, scrc_policy=path)
        fit = json.loads((path / "fit.json").read_text())
        found.add(fit["calibrator"])
        assert (_fitted(path).calibrator is None) == (fit["calibrator"] == "uncalibrated")
        assert ("'Roadwork' have no samples" in fit["uncalibrated_reason"]) == (
            fit["calibrator"] == "uncalibrated"
        )
    assert found == {"uncalibrated", "temperature"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"alpha": 0}, "alpha=0 must be > 0"),
        ({"alpha": 5}, "alpha=5 must be < 1"),
        ({"delta": 1}, "delta=1 must be < 1"),
        ({"policy": "argmax"}, "policy='argmax' must be one of softmax, gate, scrc"),
        ({"class_wise": True, "risk": "fnr"}, "class_wise=true needs risk='error', got risk='fnr'"),
        ({"min_coverage": 1.0}, "min_coverage=1.0 must be < 1"),
        ({"max_group_images": 9, "min_coverage": 0.5}, "max_group_images=9 certifies a risk per"),
    ],
)
def test_wrong_parameters_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CalibrateScrcConfig.from_mapping(values)


def test_sets_name_both_classes_where_one_is_not_certain_enough(tmp_path: Path) -> None:
    """Sets answer more images than single classes; all but alpha of them hold the truth."""
    logits = logits_artifact(tmp_path / "logits", *_samples(4000))
    config = _config(set_valued=True, min_coverage=0.8)
    run(config, val_calib_logits=logits, scrc_policy=tmp_path / "policy")
    run(_config(), val_calib_logits=logits, scrc_policy=tmp_path / "single")
    policy = _fitted(tmp_path / "policy")
    assert policy.single_from is not None
    coverage, error, _, truth, answered = _answered(policy)
    margin = _samples(200_000, seed=99)[1]
    fresh = binary_logits(truth, margin, "VAL_TEST").logits
    both, decided = policy.answer_sets(fresh).all(axis=1), policy.decide(fresh)
    missed = (policy.decision(fresh) != truth) & ~both
    assert missed[answered].mean() <= 0.05 < error
    assert (
        coverage >= policy.coverage_lower_bound >= 0.8 > _answered(_fitted(tmp_path / "single"))[0]
    )
    assert set(decided.tolist()) == {"Roadwork", "None", "None or Roadwork", "defer"}
    assert (decided[answered & both] == "None or Roadwork").all()
    assert 0.05 < both[answered].mean() < 0.6


def test_sets_that_too_few_samples_could_certify_are_infeasible(tmp_path: Path) -> None:
    logits = logits_artifact(tmp_path / "logits", *_samples(60))
    config = _config(set_valued=True, min_coverage=0.2)
    run(config, val_calib_logits=logits, scrc_policy=tmp_path / "policy")
    reason = _reason(tmp_path / "policy")
    assert re.search(r"prediction sets .* \d+ independent groups \(at least 59", reason)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"min_coverage": 0.0}, "set_valued=true needs min_coverage > 0"),
        ({"risk": "fnr"}, "set_valued=true needs risk='error', got risk='fnr'"),
        ({"class_wise": True}, "set_valued=true and class_wise=true exclude each other"),
    ],
)
def test_what_sets_cannot_promise_is_refused(changes: dict[str, Any], message: str) -> None:
    values = {"policy": "scrc", "set_valued": True, "min_coverage": 0.5} | changes
    with pytest.raises(ConfigError, match=message):
        CalibrateScrcConfig.from_mapping(values)

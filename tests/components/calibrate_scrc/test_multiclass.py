"""Selective conformal risk control of several classes: the K-way error, by class, and as sets."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from components.calibrate_scrc.config import CalibrateScrcConfig
from components.calibrate_scrc.step import run
from components.shared.policies.calibration_split import draw_calibration_split
from components.shared.policies.logits import Logits
from components.shared.policies.policy import Infeasible, ScrcPolicy
from components.shared.policies.policy_artifact import read_policy, read_policy_or_infeasible
from components.shared.stats.metrics import softmax
from tests.logits_artifacts import multiclass_artifact, multiclass_logits


def _rare(count: int, split: str, seed: int = 0) -> Logits:
    """Logits and labels of which those of class d are few."""
    drawn = multiclass_logits(count, split, seed=seed)
    logits = drawn.logits - np.float32([0, 0, 0, 14])
    chances = softmax(logits / 2).cumsum(axis=1)
    labels = (chances > np.random.default_rng([seed, 1]).random((count, 1))).argmax(axis=1)
    return replace(drawn, logits=logits, labels=labels.astype(np.int64))


def _fit(path: Path, logits: Logits, **changes: Any) -> ScrcPolicy | Infeasible:
    artifact = multiclass_artifact(path / "logits", logits)
    config = CalibrateScrcConfig(**({"policy": "scrc", "calibrator": "temperature"} | changes))
    run(config, val_calib_logits=artifact, scrc_policy=path / "policy")
    found, _ = read_policy_or_infeasible(path / "policy")
    assert isinstance(found, ScrcPolicy | Infeasible)
    return found


def test_the_error_of_the_answered_is_at_most_alpha_on_fresh_data(tmp_path: Path) -> None:
    policy = _fit(tmp_path, multiclass_logits(3000, "VAL_CALIB"))
    assert isinstance(policy, ScrcPolicy)
    fresh = multiclass_logits(100_000, "VAL_TEST", seed=9)
    answered = policy.answers(fresh.logits)
    wrong = policy.decision(fresh.logits) != fresh.labels
    assert wrong[answered].mean() <= 0.05 < wrong.mean()
    assert 0.2 < policy.coverage_lower_bound <= answered.mean()


def test_each_class_has_its_certificate_and_a_class_without_one_is_deferred(
    tmp_path: Path,
) -> None:
    """Of class d there are too few images, which the other classes do not pay for."""
    policy = _fit(tmp_path, _rare(6000, "VAL_CALIB", seed=1), class_wise=True, alpha=0.1)
    assert isinstance(policy, ScrcPolicy)
    fit = json.loads((tmp_path / "policy/fit.json").read_text())
    assert fit["certificates"].keys() == {"a", "b", "c"}
    assert fit["never_answered"] == ["d"]
    assert policy.answer_from[3] is None

    fresh = _rare(200_000, "VAL_TEST", seed=9)
    truth, decision = fresh.labels, policy.decision(fresh.logits)
    answered = policy.answers(fresh.logits)
    assert (decision[~answered] == 3).any()
    assert not (decision[answered] == 3).any()
    for number in range(3):
        rows = answered & (decision == number)
        assert 0 < (truth[rows] != number).mean() <= 0.1
    # Four targets share delta, one for each class, whichever is certified.
    assert max(c["p_value"] for c in fit["certificates"].values()) <= 0.1 / 4


def test_without_any_certificate_it_is_infeasible(tmp_path: Path) -> None:
    found = _fit(tmp_path, multiclass_logits(120, "VAL_CALIB"), class_wise=True)
    assert isinstance(found, Infeasible)
    assert "the error rate of the answer a and b and c and d" in found.reason
    # ln(0.1 / 4) / ln(0.95): each class has a fourth of delta.
    assert "at least 72 without an error are needed" in found.reason


def test_sets_hold_the_truth_and_more_images_are_answered(tmp_path: Path) -> None:
    config = {"set_valued": True, "min_coverage": 0.8}
    policy = _fit(tmp_path / "sets", multiclass_logits(4000, "VAL_CALIB", seed=1), **config)
    assert isinstance(policy, ScrcPolicy)
    fresh = multiclass_logits(100_000, "VAL_TEST", seed=9)
    answered, sets = policy.answers(fresh.logits), policy.answer_sets(fresh.logits)
    missed = ~sets[np.arange(len(sets)), fresh.labels]
    assert missed[answered].mean() <= 0.05
    assert answered.mean() >= policy.coverage_lower_bound >= 0.8
    sizes = sets.sum(axis=1)
    assert sizes.min() == 1
    assert 2 < sizes.max() <= 4
    assert {" or " in answer for answer in policy.decide(fresh.logits)} == {True, False}


@pytest.mark.parametrize("seed", range(5))
def test_the_sets_are_the_smallest_that_an_enumeration_certifies(tmp_path: Path, seed: int) -> None:
    """From sets of all classes on, each level's misses are tested until one fails."""
    logits = multiclass_logits(1500, "VAL_CALIB", seed=seed)
    config = {"set_valued": True, "min_coverage": 0.6, "seed": seed}
    policy = _fit(tmp_path, logits, **config)
    assert isinstance(policy, ScrcPolicy)
    assert policy.single_from is not None

    split = draw_calibration_split(logits.groups, 0.3, seed)
    probabilities = policy.probabilities(logits.logits)
    truth, threshold = logits.labels, policy.answer_from[0]
    answered = policy.confidence(logits.logits) >= threshold

    def missed(rows: Any, least: float) -> int:
        count = 0
        for row in rows:
            members = {k for k in range(4) if probabilities[row, k] >= least}
            members.add(int(probabilities[row].argmax()))
            count += int(truth[row]) not in members
        return count

    rows = [row for row in split.calibration if answered[row]]
    least = 1 - policy.single_from
    assert binom.cdf(missed(rows, least), len(rows), 0.05) <= 0.05
    # The next larger level that the tuning part proposes is not certified.
    tuning = [row for row in split.tuning if answered[row]]
    of_truth = sorted(
        1.0 if probabilities[row].argmax() == truth[row] else probabilities[row, truth[row]]
        for row in tuning
    )
    following = [p for p in of_truth if least + 1e-9 < p < 0.5]
    levels = {np.quantile(of_truth, level, method="lower") for level in np.linspace(0, 1, 200)}
    proposed = [p for p in following if p in levels]
    if proposed:
        assert binom.cdf(missed(rows, proposed[0]), len(rows), 0.05) > 0.05


def test_a_false_negative_rate_is_infeasible(tmp_path: Path) -> None:
    found = _fit(tmp_path, multiclass_logits(200, "VAL_CALIB"), risk="fnr")
    assert isinstance(found, Infeasible)
    assert found.reason.startswith("risk='fnr' needs task=binary")


def test_one_class_against_the_rest_is_certified_too(tmp_path: Path) -> None:
    found = _fit(
        tmp_path,
        multiclass_logits(3000, "VAL_CALIB"),
        task="binary",
        positive_class="c",
        risk="fnr",
        alpha=0.25,
    )
    assert isinstance(found, ScrcPolicy)
    fresh = multiclass_logits(50_000, "VAL_TEST", seed=9)
    answered = found.answers(fresh.logits)
    positives = answered & (fresh.labels == 2)
    assert (found.decision(fresh.logits)[positives] != 1).mean() <= 0.25
    assert set(found.decide(fresh.logits).tolist()) == {"not c", "c", "defer"}
    assert read_policy(tmp_path / "policy")[0] == found

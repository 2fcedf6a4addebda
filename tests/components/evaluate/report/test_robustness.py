"""Robustness in the report is that of the policy's decisions on logits of corrupted images."""

import dataclasses

import numpy as np
import pytest

from components.evaluate.report.report import render
from components.evaluate.report.robustness import measure_robustness
from components.shared.contracts.errors import DataError
from components.shared.contracts.outcomes import Outcomes
from components.shared.policies.logits import Logits
from components.shared.policies.policy import argmax_policy, softmax_policy
from components.shared.stats.reward import expected_reward_of_rates
from tests.components.evaluate.report.examples import ROADWORK, class_logits, report_data

POLICY = softmax_policy(ROADWORK, 0.0)


def _logits(corrupted: np.ndarray | None) -> Logits:
    """40 images, half positive, all answered right as they are."""
    labels = np.arange(40) % 2
    ids = tuple(f"{i:016x}" for i in range(40))
    logits = np.stack([1.0 - labels, labels], axis=1).astype(np.float32)
    return Logits(
        "VAL_TEST", ("None", "Roadwork"), ids, labels, logits, ids, ids, ids, corrupted=corrupted
    )


def test_each_level_is_measured_by_its_own_decisions() -> None:
    right = _logits(None).logits
    missing = right.copy()
    missing[1::4] = right[0]  # half of the positives are not found any more
    result = measure_robustness("softmax", _logits(np.stack([right, missing])), POLICY, 200, 0)
    assert result is not None
    accuracy = [entries["accuracy"]["value"] for entries in result.levels.values()]
    reward = [entries["expected_reward"]["value"] for entries in result.levels.values()]
    assert list(result.levels) == ["as stored", "level 0", "level 1"]
    assert accuracy == [1, 1, 0.75]
    assert reward == pytest.approx([1, 1, float(expected_reward_of_rates(0.5, 1.0))])
    html = render(dataclasses.replace(report_data(), robustness=[result]))
    assert "<b>0.750</b>" in html
    assert "level 1" in html


def test_several_classes_have_no_reward() -> None:
    logits = class_logits(("a", "b", "c"))
    wrong = np.roll(logits.logits, 1, axis=1)
    both = dataclasses.replace(logits, corrupted=np.stack([logits.logits, wrong]))
    policy = argmax_policy(Outcomes.of(("a", "b", "c")))
    result = measure_robustness("softmax", both, policy, 200, 0)
    assert result is not None
    assert result.metrics == ("accuracy", "mcc")
    stored, same, rolled = result.levels.values()
    expected = (logits.logits.argmax(axis=1) == logits.labels).mean()
    assert stored["accuracy"]["value"] == same["accuracy"]["value"] == pytest.approx(expected)
    assert rolled["accuracy"]["value"] == pytest.approx(
        (wrong.argmax(axis=1) == logits.labels).mean()
    )


def test_without_logits_of_corrupted_images_there_is_no_section() -> None:
    assert measure_robustness("softmax", _logits(None), POLICY, 200, 0) is None
    assert "Robustness" not in render(report_data())


def test_distorted_logits_of_another_shape_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"corrupted is float32 \(4, 39, 2\), expected float32 \(4, 40, 2\)"
    ):
        _logits(np.zeros((4, 39, 2), dtype=np.float32))

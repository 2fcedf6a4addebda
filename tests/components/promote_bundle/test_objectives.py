"""Objectives: which policy has which, and that larger is better for all."""

import numpy as np
import pytest

from components.promote_bundle.config import OBJECTIVES
from components.promote_bundle.objectives import ACCURACY, objective_of, of_slice
from components.shared.contracts.errors import ConfigError
from components.shared.contracts.outcomes import Outcomes
from components.shared.policies.policy import argmax_policy
from components.shared.stats import metrics
from components.shared.stats.reward import expected_reward
from components.shared.stats.risk_coverage import augrc
from tests.components.promote_bundle.predicted import SOFTMAX, model, scrc

TRUTH = np.arange(400) % 3 == 0
ROWS = np.arange(400)


def test_the_metrics_are_those_of_the_library() -> None:
    p = model(TRUTH, 0.1, 0, scrc())
    found = {name: objective_of(name, scrc()).value(p) for name in OBJECTIVES}
    assert found["mcc"] == pytest.approx(float(metrics.mcc(TRUTH, p.says_positive)))
    assert found["expected_reward"] == pytest.approx(float(expected_reward(TRUTH, p.says_positive)))
    assert found["augrc"] == pytest.approx(float(augrc(p.confidence, p.error)))
    assert found["coverage"] == pytest.approx(p.answered.mean())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_better_model_scores_higher(name: str) -> None:
    # One that is wrong less often, and one that answers more often.
    better, worse = model(TRUTH, 0.05, 0, scrc(answer_from=0.5)), model(TRUTH, 0.3, 1, scrc())
    objective = objective_of(name, scrc())
    scores = [float(np.asarray(objective.score_of(p, ROWS)(None))) for p in (better, worse)]
    assert scores[0] > scores[1]


def test_a_score_of_some_rows_is_that_of_these_images() -> None:
    p, rows = model(TRUTH, 0.2, 0), np.arange(50, 250)
    found = objective_of("mcc", SOFTMAX).score_of(p, rows)(None)
    assert found == pytest.approx(float(metrics.mcc(TRUTH[rows], p.says_positive[rows])))


def test_objectives_that_a_policy_does_not_have() -> None:
    several = argmax_policy(Outcomes.of(("a", "b", "c")))
    with pytest.raises(ConfigError, match="needs a binary task"):
        objective_of("expected_reward", several)
    with pytest.raises(ConfigError, match="needs a policy with a certified risk"):
        objective_of("coverage", SOFTMAX)


def test_a_slice_of_one_outcome_is_judged_by_its_accuracy() -> None:
    mcc, area = objective_of("mcc", SOFTMAX), objective_of("augrc", SOFTMAX)
    assert of_slice(mcc, np.array([0, 1, 1])) is mcc
    assert of_slice(mcc, np.array([1, 1, 1])) is ACCURACY
    assert of_slice(area, np.array([1, 1, 1])) is area

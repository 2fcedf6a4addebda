"""Objectives of a comparison: metrics of two policies on the same images, larger is better.

An area that should be small enters with the opposite sign, so that a gain is always positive.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from components.shared.contracts.errors import ConfigError
from components.shared.policies.policy import Policy, SelectivePolicy
from components.shared.policies.predictions import Predictions
from components.shared.stats import multiclass
from components.shared.stats.bootstrap import Statistic
from components.shared.stats.metrics import Floats, Integers, Weights, weighted_mean
from components.shared.stats.reward import expected_reward
from components.shared.stats.risk_coverage import augrc


@dataclass(frozen=True)
class Objective:
    """A metric that decides.

    Attributes:
        name: value of the option `objective`.
        label: title in the report.
        sign: 1 where larger values are better, else -1.
        function: value of some rows (n,) of the predictions, for weights (R, n) or None.
    """

    name: str
    label: str
    sign: int
    function: Callable[[Predictions, Integers, Weights], Floats | float]

    def value(self, predictions: Predictions) -> float:
        """Return the metric of all samples, in its own sign."""
        return float(self.function(predictions, np.arange(len(predictions.truth)), None))

    def score_of(self, predictions: Predictions, rows: Integers) -> Statistic:
        """Return the metric of some rows (n,) as a function of their weights, larger is better."""
        function = partial(self.function, predictions, rows)
        return lambda weights: self.sign * np.asarray(function(weights))


def _mcc(p: Predictions, rows: Integers, w: Weights) -> Floats:
    return multiclass.mcc(p.truth[rows], p.decision[rows], p.n_outcomes, w)


def _reward(p: Predictions, rows: Integers, w: Weights) -> Floats:
    return expected_reward(p.is_positive[rows], p.says_positive[rows], w)


def _augrc(p: Predictions, rows: Integers, w: Weights) -> Floats:
    return augrc(p.confidence[rows], p.error[rows], w)


def _coverage(p: Predictions, rows: Integers, w: Weights) -> Floats:
    return weighted_mean(p.answered[rows], w)


def _accuracy(p: Predictions, rows: Integers, w: Weights) -> Floats:
    return weighted_mean(~p.error[rows], w)


_OBJECTIVES = {
    "mcc": Objective("mcc", "MCC", 1, _mcc),
    "expected_reward": Objective("expected_reward", "Expected deployment reward", 1, _reward),
    "augrc": Objective("augrc", "AUGRC", -1, _augrc),
    "coverage": Objective("coverage", "Coverage at the certified risk", 1, _coverage),
}
# Defined also where all images have one outcome.
ACCURACY = Objective("accuracy", "Accuracy", 1, _accuracy)
_NEEDS_BOTH_OUTCOMES = ("mcc", "expected_reward")


def objective_of(name: str, policy: Policy) -> Objective:
    """Return the objective of a challenger with this policy.

    Raises:
        ConfigError: the task or the policy has no such metric.
    """
    if name == "expected_reward" and policy.outcomes.positive is None:
        raise ConfigError("objective='expected_reward' needs a binary task; use mcc")
    if name == "coverage" and not isinstance(policy, SelectivePolicy):
        raise ConfigError(
            f"objective='coverage' needs a policy with a certified risk, gate or scrc; the bundle"
            f" has policy {policy.kind!r}"
        )
    return _OBJECTIVES[name]


def label_of(name: str) -> str:
    """Return the title of what a record names; the name itself where it is of another version."""
    found = {**_OBJECTIVES, ACCURACY.name: ACCURACY}.get(name)
    return found.label if found is not None else name


def of_slice(objective: Objective, truth: Integers) -> Objective:
    """Return what a slice with these outcomes (n,) is judged by.

    The objective, or the accuracy where the objective needs images of two outcomes.
    """
    needs_both = objective.name in _NEEDS_BOTH_OUTCOMES
    return ACCURACY if needs_both and len(np.unique(truth)) < 2 else objective

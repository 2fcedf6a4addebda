"""Robustness of decisions on VAL_TEST under the image corruptions of the deployment."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from components.evaluate.report.scorecard import Entry, entries
from components.shared.contracts.outcomes import BINARY, MULTICLASS
from components.shared.policies.logits import Logits
from components.shared.policies.policy import Policy
from components.shared.stats import multiclass
from components.shared.stats.bootstrap import Statistic
from components.shared.stats.jackknife import Scale
from components.shared.stats.metrics import Floats, Integers, Weights, weighted_mean
from components.shared.stats.reward import expected_reward

UNCORRUPTED = "as stored"


def _accuracy(truth: Integers, decision: Integers, weights: Weights) -> Floats:
    return weighted_mean(truth == decision, weights)


def _reward(truth: Integers, decision: Integers, weights: Weights) -> Floats:
    return expected_reward(truth == 1, decision == 1, weights)


def _mcc(truth: Integers, decision: Integers, weights: Weights) -> Floats:
    n_outcomes = 1 + int(max(truth.max(), decision.max()))
    return multiclass.mcc(truth, decision, n_outcomes, weights)


_Function = Callable[[Integers, Integers, Weights], Floats]

# Task -> name -> scale of the interval, and function of truth, decisions and weights.
METRICS: dict[str, dict[str, tuple[Scale, _Function]]] = {
    BINARY: {
        "accuracy": (Scale.PROPORTION, _accuracy),
        "expected_reward": (Scale.UNIT, _reward),
    },
    MULTICLASS: {
        "accuracy": (Scale.PROPORTION, _accuracy),
        "mcc": (Scale.CORRELATION, _mcc),
    },
}


@dataclass(frozen=True)
class Robustness:
    """Metrics of one policy by level of corruption, the uncorrupted images first."""

    kind: str
    levels: dict[str, dict[str, Entry]]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics, the same at every level."""
        return tuple(self.levels[UNCORRUPTED])

    def to_json(self) -> dict[str, Any]:
        """Return the entry of eval_report.json."""
        return dict(self.levels)


def measure_robustness(
    kind: str, logits: Logits, policy: Policy, n_replicates: int, seed: int
) -> Robustness | None:
    """Measure a policy's decisions at every level of corruption.

    Args:
        kind: of the policy.
        logits: of VAL_TEST, with those of the corrupted images.
        policy: decides on the logits.
        n_replicates: replicates of the intervals that are drawn.
        seed: of the draws.

    Returns:
        None where the logits hold none of corrupted images.
    """
    if logits.corrupted is None:
        return None

    logits_of = {UNCORRUPTED: logits.logits}
    for number, corrupted in enumerate(logits.corrupted):
        logits_of[f"level {number}"] = corrupted

    truth, table = logits.truth(policy.outcomes), METRICS[policy.outcomes.task]
    scales = {name: scale for name, (scale, _) in table.items()}
    levels = {}

    for level, values in logits_of.items():
        decision = policy.decision(values)
        statistics: dict[str, Statistic] = {
            name: partial(function, truth, decision) for name, (_, function) in table.items()
        }
        levels[level] = entries(statistics, logits.groups, n_replicates, seed, scales)

    return Robustness(kind, levels)

"""Robustness of decisions on VAL_TEST under the image corruptions of the deployment."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

from components.evaluate.report.scorecard import Entry
from components.shared.policies.logits import Logits
from components.shared.policies.policy import Policy
from components.shared.stats.bootstrap import Interval, Statistic, intervals
from components.shared.stats.jackknife import Scale
from components.shared.stats.metrics import accuracy
from components.shared.stats.reward import expected_reward

METRICS = {"accuracy": accuracy, "expected_reward": expected_reward}
_SCALES = {"accuracy": Scale.PROPORTION, "expected_reward": Scale.UNIT}
UNCORRUPTED = "as stored"


@dataclass(frozen=True)
class Robustness:
    """Metrics of one policy by level of corruption, the uncorrupted images first."""

    kind: str
    levels: dict[str, dict[str, Entry]]

    def to_json(self) -> dict[str, Any]:
        """Return the entry of eval_report.json."""
        return dict(self.levels)


def measure_robustness(
    kind: str, logits: Logits, policy: Policy, n_replicates: int, seed: int
) -> Robustness | None:
    """Measure a policy's decisions at every level, all levels on the same replicates.

    Args:
        kind: of the policy.
        logits: of VAL_TEST, with those of the corrupted images.
        policy: decides on the logits.
        n_replicates: replicates of the bootstrap over groups.
        seed: of the resampling.

    Returns:
        None where the logits hold none of corrupted images.
    """
    if logits.corrupted is None:
        return None

    truth = logits.truth(policy.outcomes) == 1
    logits_of = {UNCORRUPTED: logits.logits}
    for number, corrupted in enumerate(logits.corrupted):
        logits_of[f"level {number}"] = corrupted

    statistics: dict[str, Statistic] = {}

    for level, values in logits_of.items():
        decision = policy.decision(values) == 1
        for name, metric in METRICS.items():
            statistics[f"{level}/{name}"] = partial(metric, truth, decision)

    scales = {key: _SCALES[key.split("/")[1]] for key in statistics}
    bounds = intervals(statistics, logits.groups, n_replicates, seed, scales)

    levels = {
        level: {
            name: _entry(statistics[f"{level}/{name}"](None), bounds[f"{level}/{name}"])
            for name in METRICS
        }
        for level in logits_of
    }

    return Robustness(kind, levels)


def _entry(value: Any, bounds: Interval) -> Entry:
    value = float(value)
    return {"value": None if math.isnan(value) else value, "interval_95": bounds}

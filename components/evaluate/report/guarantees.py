"""Guarantees of selective policies: certified on VAL_CALIB, observed on VAL_TEST.

A gate is compared with the model's own confidence, because it is worth its weights only if it ranks
errors better.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from components.evaluate.report.scorecard import Entry, Predictions
from components.shared.policies.policy import SelectivePolicy
from components.shared.stats.bootstrap import Interval, membership, paired_difference
from components.shared.stats.risk_coverage import augrc

_METRIC_OF_RISK = {"error": "exit_error", "fnr": "exit_fnr"}
_NAME_OF_RISK = {"error": "error rate", "fnr": "false negative rate"}


@dataclass(frozen=True)
class Guarantee:
    """Certified and observed risk and coverage of one policy.

    With probability at least 1 - delta the risk is at most `alpha`; with the same probability the
    coverage is at least `coverage_lower_bound`.
    """

    kind: str
    risk: str
    alpha: float
    delta: float
    coverage_lower_bound: float
    observed_risk: Entry
    observed_coverage: Entry

    @classmethod
    def of(cls, policy: SelectivePolicy, metrics: Mapping[str, Entry]) -> "Guarantee":
        """Return the guarantee of `policy` beside its metrics on VAL_TEST."""
        return cls(
            kind=policy.kind,
            risk=_NAME_OF_RISK[policy.risk],
            alpha=policy.alpha,
            delta=policy.delta,
            coverage_lower_bound=policy.coverage_lower_bound,
            observed_risk=metrics[_METRIC_OF_RISK[policy.risk]],
            observed_coverage=metrics["exit_rate"],
        )


@dataclass(frozen=True)
class PolicyComparison:
    """AUGRC of a policy's score minus AUGRC of the model's confidence, for the same decisions.

    Only the ranking differs: a better decision rule does not lower the difference.
    """

    kind: str
    difference: float
    interval_95: Interval

    @property
    def better(self) -> bool:
        """Whether the whole paired interval lies below zero."""
        return self.interval_95 is not None and self.interval_95[1] < 0

    def to_json(self) -> dict[str, Any]:
        """Return the entry of eval_report.json."""
        return {
            "metric": "augrc",
            "difference": self.difference,
            "interval_95": self.interval_95,
            "better": self.better,
        }


def compare_to_confidence(
    kind: str, predictions: Predictions, threshold_margin: float, *, n_replicates: int, seed: int
) -> PolicyComparison:
    """Compare a policy's ranking of its errors with that of the model's own confidence.

    Args:
        kind: of the policy.
        predictions: of the policy on VAL_TEST.
        threshold_margin: the log-odds from which the confidence is the distance.
        n_replicates: replicates of the bootstrap over groups; both rankings share them.
        seed: of the resampling.
    """
    score = partial(augrc, predictions.confidence, predictions.error)
    confidence = np.abs(predictions.margin - threshold_margin)
    baseline = partial(augrc, confidence, predictions.error)

    member = membership(predictions.groups, len(predictions.groups))
    difference = paired_difference(score, baseline, member, n_replicates, seed)
    return PolicyComparison(kind, difference.value, difference.interval)

"""Did each policy keep its promise on VAL_TEST, and does it know better than confidence when not to
answer?
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import Any

import numpy as np

from components.evaluate.report import page
from components.evaluate.report.scorecard import Entry, Predictions
from components.shared.policies.policy import Infeasible, SelectivePolicy
from components.shared.stats.bootstrap import Interval, membership, paired_difference
from components.shared.stats.risk_coverage import augrc

_METRIC_OF_RISK = {"error": "exit_error", "fnr": "exit_fnr"}
_NAME_OF_RISK = {"error": "error rate", "fnr": "false negative rate"}


@dataclass(frozen=True)
class Guarantee:
    """Target against achieved, of one policy; `infeasible` says why there is no policy, the rest is
    then None.
    """

    kind: str
    infeasible: str | None
    risk: str | None
    alpha: float | None
    delta: float | None
    achieved: Entry | None
    coverage_lower_bound: float | None
    coverage: Entry | None

    @classmethod
    def of(cls, policy: SelectivePolicy | Infeasible, metrics: Mapping[str, Entry]) -> "Guarantee":
        """From a policy and its metrics on VAL_TEST."""
        if isinstance(policy, Infeasible):
            return cls(policy.kind, policy.reason, None, None, None, None, None, None)
        return cls(
            kind=policy.kind,
            infeasible=None,
            risk=policy.risk,
            alpha=policy.alpha,
            delta=policy.delta,
            achieved=metrics[_METRIC_OF_RISK[policy.risk]],
            coverage_lower_bound=policy.coverage_lower_bound,
            coverage=metrics["exit_rate"],
        )


@dataclass(frozen=True)
class PolicyComparison:
    """AUGRC of a policy's own score minus that of the same model's confidence, for the same
    decisions.

    `better` if the whole interval is below 0. Only the ranking differs: a better decision rule does
    not help.
    """

    kind: str
    difference: float
    interval_95: Interval

    @property
    def better(self) -> bool:
        """Whether the policy ranks its errors better than the model's confidence does, for sure."""
        return self.interval_95 is not None and self.interval_95[1] < 0

    def to_json(self) -> dict[str, Any]:
        """For eval_report.json."""
        return {
            "metric": "augrc",
            "difference": self.difference,
            "interval_95": self.interval_95,
            "better": self.better,
        }


def compare_to_confidence(
    kind: str, predictions: Predictions, threshold_margin: float, *, n_replicates: int, seed: int
) -> PolicyComparison:
    """Paired over groups, against the distance of the margin from the threshold."""
    scores = predictions.confidence, np.abs(predictions.margin - threshold_margin)
    first, second = (partial(augrc, score, predictions.error) for score in scores)
    member = membership(predictions.groups, len(predictions.groups))
    found = paired_difference(first, second, member, n_replicates, seed)
    return PolicyComparison(kind, found.value, found.interval)


def promises_section(promises: Sequence[Guarantee], comparisons: Sequence[PolicyComparison]) -> str:
    """HTML: a row for each policy that promises something; empty without any."""
    if not promises:
        return ""
    head = [
        "policy",
        "promised",
        "achieved on VAL_TEST",
        "coverage promised",
        "coverage achieved",
        "AUGRC to confidence",
    ]
    against = {comparison.kind: comparison for comparison in comparisons}
    rows = [
        page.row(promise.kind, _cells(promise, against.get(promise.kind))) for promise in promises
    ]
    note = (
        "Promises hold with the stated probability over draws of VAL_CALIB, for images like those. "
    )
    worse = [escape(c.kind) for c in comparisons if not c.better]
    if worse:
        note += (
            f"{' and '.join(worse)}: ranks no better, for sure, than the model's own confidence;"
            " not recommended."
        )
    return page.section("Promises", page.table("Promised against achieved", head, rows), note)


def _cells(promise: Guarantee, comparison: PolicyComparison | None) -> list[str]:
    if promise.infeasible is not None:
        return [f'<span class="prose">infeasible: {escape(promise.infeasible)}</span>', *[""] * 4]
    assert promise.risk is not None
    assert promise.delta is not None
    promised = f"{_NAME_OF_RISK[promise.risk]} ≤ {promise.alpha:g}, sure to {1 - promise.delta:g}"
    gain = ""
    if comparison is not None:
        gain = f"{comparison.difference:+.4f} <small>{_interval(comparison.interval_95)}</small>"
    bound = f"≥ {promise.coverage_lower_bound:.3f}"
    return [promised, _entry(promise.achieved), bound, _entry(promise.coverage), gain]


def _entry(entry: Entry | None) -> str:
    if entry is None or entry["value"] is None:
        return "none"
    return f"<b>{entry['value']:.3f}</b> <small>{_interval(entry['interval_95'])}</small>"


def _interval(bounds: Interval) -> str:
    return "none" if bounds is None else f"{bounds[0]:.4f} to {bounds[1]:.4f}"

"""Guarantees of selective policies: certified on VAL_CALIB, observed on VAL_TEST.

What is certified is the risk of a random image of a random group, so the observed risk weights each
image by 1 / size of its group. The risk of a random image stands beside it: it is another quantity
where large groups are harder than small ones, and certified only where the policy has
`max_group_images`.

A gate is compared with the model's own confidence, because it is worth its weights only if it ranks
errors better.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from components.evaluate.report.scorecard import Entry, entries, metrics_of, per_group
from components.evaluate.targets import Targets
from components.shared.policies.policy import SelectivePolicy
from components.shared.policies.predictions import Predictions
from components.shared.policies.targets import ALL_ANSWERS
from components.shared.stats.bootstrap import Interval, Statistic, membership, paired_difference
from components.shared.stats.jackknife import Scale
from components.shared.stats.metrics import Floats
from components.shared.stats.risk_coverage import augrc

PER_GROUP, PER_IMAGE = "a random image of a random group", "a random image"
_METRIC_OF_RISK = {"error": "exit_error", "fnr": "exit_fnr"}
_NAME_OF_RISK = {"error": "error rate", "fnr": "false negative rate"}


@dataclass(frozen=True)
class Guarantee:
    """Certified and observed risk of one policy, or of one of its answers.

    With probability at least 1 - delta the risk among answered images, of `unit`, is at most
    `alpha`; with the same probability the coverage is at least `coverage_lower_bound`.

    Attributes:
        kind: of the policy.
        answer: the outcome whose answers are certified on their own; empty for all answers.
        risk: name of the risk.
        alpha: certified risk.
        delta: probability with which a bound may fail.
        max_group_images: size that no group may exceed for a risk of a random image; None: the risk
            is that of a random image of a random group.
        coverage_lower_bound: of all answers together; None where it is not certified.
        attempt: at this guarantee on the same data, from 1; 0: not recorded.
        observed_risk: of a random image of a random group.
        observed_risk_per_image: of a random image.
        observed_coverage: of a random image of a random group.
        observed_coverage_per_image: of a random image.
    """

    kind: str
    answer: str
    risk: str
    alpha: float
    delta: float
    max_group_images: int | None
    coverage_lower_bound: float | None
    attempt: int
    observed_risk: Entry
    observed_risk_per_image: Entry
    observed_coverage: Entry
    observed_coverage_per_image: Entry

    @property
    def unit(self) -> str:
        """The image whose risk is certified."""
        return PER_GROUP if self.max_group_images is None else PER_IMAGE

    def to_json(self) -> dict[str, Any]:
        """Return the entry of eval_report.json."""
        return {
            "unit": self.unit,
            "max_group_images": self.max_group_images,
            "answer": self.answer or None,
            "risk": self.risk,
            "alpha": self.alpha,
            "delta": self.delta,
            "coverage_lower_bound": self.coverage_lower_bound,
            "attempt": self.attempt,
            "observed_risk": self.observed_risk,
            "observed_risk_per_image": self.observed_risk_per_image,
            "observed_coverage": self.observed_coverage,
            "observed_coverage_per_image": self.observed_coverage_per_image,
        }


def measure_guarantees(
    policy: SelectivePolicy,
    predictions: Predictions,
    certified: Sequence[str],
    *,
    attempt: int,
    targets: Targets,
    n_replicates: int,
    seed: int,
) -> tuple[Guarantee, ...]:
    """Measure on VAL_TEST what a policy was certified for on VAL_CALIB.

    Args:
        policy: with a guarantee.
        predictions: of the policy.
        certified: the answers with certificates of their own, or `ALL_ANSWERS` alone.
        attempt: at the policy's guarantee on the same data; 0: not recorded.
        targets: operating points of the metrics.
        n_replicates: replicates of the intervals that are drawn.
        seed: of the draws.
    """
    found = []
    # A risk per image comes without a bound of the coverage.
    per_group_only = policy.max_group_images is None
    for name in certified:
        asked, answer = predictions, "" if name == ALL_ANSWERS else name
        if answer:
            of_answer = predictions.decision == predictions.outcomes.names.index(answer)
            asked = replace(predictions, answered=predictions.answered & of_answer)

        observed = _observed(policy, asked, targets, n_replicates, seed)
        found.append(
            Guarantee(
                kind=policy.kind,
                answer=answer,
                risk=_NAME_OF_RISK[policy.risk],
                alpha=policy.alpha,
                delta=policy.delta,
                max_group_images=policy.max_group_images,
                coverage_lower_bound=policy.coverage_lower_bound if per_group_only else None,
                attempt=attempt,
                observed_risk=observed["risk per group"],
                observed_risk_per_image=observed["risk"],
                observed_coverage=observed["coverage per group"],
                observed_coverage_per_image=observed["coverage"],
            )
        )

    return tuple(found)


def _observed(
    policy: SelectivePolicy,
    predictions: Predictions,
    targets: Targets,
    n_replicates: int,
    seed: int,
) -> dict[str, Entry]:
    """Return risk and coverage, of a random image and of a random image of a random group."""
    table = metrics_of(predictions.outcomes.task)
    statistics: dict[str, Statistic] = {}

    for name, metric in (("risk", _METRIC_OF_RISK[policy.risk]), ("coverage", "exit_rate")):
        per_image = partial(table[metric].function, predictions, targets)
        statistics[name] = per_image
        statistics[f"{name} per group"] = per_group(per_image, predictions.groups)

    scales = dict.fromkeys(statistics, Scale.PROPORTION)
    return entries(statistics, predictions.groups, n_replicates, seed, scales)


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
            "decided_on": "VAL_TEST",
        }


def compare_to_confidence(
    kind: str, predictions: Predictions, confidence: Floats, *, n_replicates: int, seed: int
) -> PolicyComparison:
    """Compare a policy's ranking of its errors with that of the model's own confidence.

    Args:
        kind: of the policy.
        predictions: of the policy on VAL_TEST.
        confidence: (N,) of the model in the same decisions.
        n_replicates: draws of the paired interval.
        seed: of the draws.
    """
    score = partial(augrc, predictions.confidence, predictions.error)
    baseline = partial(augrc, confidence, predictions.error)

    member = membership(predictions.groups, len(predictions.groups))
    difference = paired_difference(score, baseline, member, n_replicates, seed)
    return PolicyComparison(kind, difference.value, difference.interval)

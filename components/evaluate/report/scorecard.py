"""The metrics of a policy: one table of names, labels, directions and functions.

The table is the only list behind eval_report.json, metrics.csv, the KFP metrics, the report and the
comparison of policies.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from typing import TypedDict

import numpy as np

from components.evaluate.targets import Targets
from components.shared.stats import calibration_error, metrics, risk_coverage
from components.shared.stats.bootstrap import Interval, Statistic, intervals
from components.shared.stats.jackknife import Scale
from components.shared.stats.metrics import Bools, Floats, Weights
from components.shared.stats.reward import expected_reward


@dataclass(frozen=True)
class Predictions:
    """Output of one policy for N samples.

    Attributes:
        truth: (N,) True for the positive class.
        decision: (N,) True where the policy decides for the positive class.
        margin: (N,) log-odds of the positive class.
        confidence: (N,) score of the decision; larger means more certain.
        groups: N group names; the bootstrap resamples whole groups.
        answered: (N,) False where the policy defers; all True for a policy that never defers.
        both: (N,) True where an answer names both classes, which counts as correct.
    """

    truth: Bools
    decision: Bools
    margin: Floats
    confidence: Floats
    groups: tuple[str, ...]
    answered: Bools
    both: Bools

    @cached_property
    def probability(self) -> Floats:
        """(N,) P(positive)."""
        return metrics.sigmoid(self.margin)

    @cached_property
    def error(self) -> Bools:
        """(N,) True where the decision is wrong."""
        wrong: Bools = self.truth != self.decision
        return wrong

    @cached_property
    def top_label(self) -> tuple[Bools, Floats]:
        """(N,) whether the more probable class is the true one, and (N,) its probability."""
        return calibration_error.top_label(self.truth, self.probability)

    @property
    def n_groups(self) -> int:
        """Number of distinct groups."""
        return len(set(self.groups))


class Entry(TypedDict):
    """A metric and its 95 % interval; None where the operating point or the interval is missing."""

    value: float | None
    interval_95: Interval


@dataclass(frozen=True)
class Metric:
    """One row of the scorecard.

    Attributes:
        name: key in the documents.
        label: title in the report, with fields of `Targets` in braces.
        direction: HIGHER or LOWER, the direction of improvement.
        scale: decides how the interval is computed; None where there is no interval.
        function: value for weights (R, N), or for None, of predictions and targets.
    """

    name: str
    label: str
    direction: str
    scale: Scale | None
    function: Callable[[Predictions, Targets, Weights], Floats | float | None]

    def label_at(self, targets: Targets) -> str:
        """Return the label with the operating points filled in."""
        return self.label.format_map(vars(targets))


HIGHER, LOWER = "↑", "↓"


def _fraction(event: Bools, among: Bools, weights: Weights) -> Floats:
    """Return the fraction of `among` with the event; nan where `among` is empty."""
    return metrics.ratio(
        metrics.weighted_mean(event & among, weights), metrics.weighted_mean(among, weights), np.nan
    )


# Arguments of each function: predictions p, targets t ("_" where unused), weights w.
_DECISIONS = (
    Metric(
        "accuracy",
        "Accuracy",
        HIGHER,
        Scale.PROPORTION,
        lambda p, _, w: metrics.accuracy(p.truth, p.decision, w),
    ),
    Metric(
        "balanced_accuracy",
        "Balanced accuracy",
        HIGHER,
        Scale.UNIT,
        lambda p, _, w: metrics.balanced_accuracy(p.truth, p.decision, w),
    ),
    Metric(
        "mcc", "MCC", HIGHER, Scale.CORRELATION, lambda p, _, w: metrics.mcc(p.truth, p.decision, w)
    ),
    Metric("f1", "F1", HIGHER, Scale.UNIT, lambda p, _, w: metrics.f1(p.truth, p.decision, w)),
    Metric(
        "expected_reward",
        "Expected deployment reward",
        HIGHER,
        Scale.UNIT,
        lambda p, _, w: expected_reward(p.truth, p.decision, w),
    ),
)

_RANKING = (
    Metric(
        "auroc", "AUROC", HIGHER, Scale.UNIT, lambda p, _, w: metrics.auroc(p.truth, p.margin, w)
    ),
    Metric(
        "average_precision",
        "Average precision",
        HIGHER,
        Scale.UNIT,
        lambda p, _, w: metrics.average_precision(p.truth, p.margin, w),
    ),
    Metric(
        "coverage_at_precision",
        "Coverage at precision {precision:g}",
        HIGHER,
        Scale.QUANTILE,
        lambda p, t, w: metrics.coverage_at_precision(p.truth, p.margin, t.precision, w),
    ),
)

_PROBABILITIES = (
    Metric(
        "ece_top_label",
        "ECE, top label",
        LOWER,
        None,
        lambda p, _, w: calibration_error.ece_top_label(p.truth, p.probability, weights=w),
    ),
    Metric(
        "ece_positive_class",
        "ECE, positive class",
        LOWER,
        None,
        lambda p, _, w: calibration_error.ece_positive_class(p.truth, p.probability, weights=w),
    ),
    Metric(
        "ece_equal_mass",
        "ECE, top label, equal-mass bins",
        LOWER,
        None,
        lambda p, _, w: calibration_error.ece_equal_mass(*p.top_label, weights=w),
    ),
    Metric(
        "ce_debiased",
        "Calibration error, top label, debiased",
        LOWER,
        None,
        lambda p, _, w: calibration_error.ce_debiased(*p.top_label, weights=w),
    ),
    Metric(
        "mce_top_label",
        "MCE, top label",
        LOWER,
        None,
        lambda p, _, w: calibration_error.mce(*p.top_label, weights=w),
    ),
    Metric(
        "brier",
        "Brier score",
        LOWER,
        Scale.UNIT,
        lambda p, _, w: metrics.brier(p.truth, p.probability, w),
    ),
    Metric(
        "nll",
        "NLL (nats)",
        LOWER,
        Scale.POSITIVE,
        lambda p, _, w: metrics.nll(p.truth, p.margin, w),
    ),
)

_SELECTIVE = (
    Metric(
        "aurc",
        "AURC",
        LOWER,
        Scale.UNIT,
        lambda p, _, w: risk_coverage.aurc(p.confidence, p.error, w),
    ),
    Metric(
        "e_aurc",
        "Excess AURC",
        LOWER,
        Scale.UNIT,
        lambda p, _, w: risk_coverage.e_aurc(p.confidence, p.error, w),
    ),
    Metric(
        "aurc_balanced",
        "AURC, equal class weights",
        LOWER,
        Scale.UNIT,
        lambda p, _, w: risk_coverage.aurc_balanced(p.confidence, p.error, p.truth, w),
    ),
    Metric(
        "augrc",
        "AUGRC",
        LOWER,
        Scale.UNIT,
        lambda p, _, w: risk_coverage.augrc(p.confidence, p.error, w),
    ),
    Metric(
        "e_augrc",
        "Excess AUGRC",
        LOWER,
        Scale.UNIT,
        lambda p, _, w: risk_coverage.e_augrc(p.confidence, p.error, w),
    ),
    Metric(
        "augrc_balanced",
        "AUGRC, equal class weights",
        LOWER,
        Scale.UNIT,
        lambda p, _, w: risk_coverage.augrc_balanced(p.confidence, p.error, p.truth, w),
    ),
    Metric(
        "failure_auroc",
        "AUROC, correct against wrong decisions",
        HIGHER,
        Scale.UNIT,
        lambda p, _, w: risk_coverage.failure_auroc(p.confidence, p.error, w),
    ),
    Metric(
        "coverage_at_risk",
        "Coverage at error rate {risk:g}",
        HIGHER,
        Scale.QUANTILE,
        lambda p, t, w: risk_coverage.coverage_at_risk(p.confidence, p.error, t.risk, w),
    ),
    Metric(
        "risk_at_coverage",
        "Error rate at coverage {coverage:g}",
        LOWER,
        Scale.UNIT,
        lambda p, t, w: risk_coverage.risk_at_coverage(p.confidence, p.error, t.coverage, w),
    ),
)

_ANSWERS = (
    Metric(
        "exit_rate",
        "Fraction answered (exit rate)",
        HIGHER,
        Scale.PROPORTION,
        lambda p, _, w: metrics.weighted_mean(p.answered, w),
    ),
    Metric(
        "exit_both",
        "Fraction of answers that name both classes",
        LOWER,
        Scale.PROPORTION,
        lambda p, _, w: _fraction(p.both, p.answered, w),
    ),
    Metric(
        "exit_accuracy",
        "Accuracy among answered",
        HIGHER,
        Scale.PROPORTION,
        lambda p, _, w: _fraction(~p.error | p.both, p.answered, w),
    ),
    Metric(
        "exit_error",
        "Error rate among answered",
        LOWER,
        Scale.PROPORTION,
        lambda p, _, w: _fraction(p.error & ~p.both, p.answered, w),
    ),
    Metric(
        "exit_fnr",
        "False negative rate among answered",
        LOWER,
        Scale.PROPORTION,
        lambda p, _, w: _fraction(~p.decision & ~p.both, p.answered & p.truth, w),
    ),
    Metric(
        "deferred_positives",
        "Fraction of positives deferred",
        LOWER,
        Scale.PROPORTION,
        lambda p, _, w: _fraction(~p.answered, p.truth, w),
    ),
)

METRIC_GROUPS = {
    "Decisions": _DECISIONS,
    "Ranking by score": _RANKING,
    "Calibration of probabilities": _PROBABILITIES,
    "Selective prediction": _SELECTIVE,
    "Answers of stage 1": _ANSWERS,
}
METRICS = tuple(chain.from_iterable(METRIC_GROUPS.values()))


def measure(
    predictions: Predictions, *, targets: Targets, n_replicates: int, seed: int
) -> dict[str, Entry]:
    """Measure all METRICS with 95 % intervals over groups.

    Args:
        predictions: of one policy.
        targets: operating points.
        n_replicates: bootstrap replicates of every interval.
        seed: of the resampling; the same seed gives the same replicates for every policy.

    Returns:
        By metric name: the value and its interval.
    """
    statistics: dict[str, Statistic] = {
        metric.name: partial(metric.function, predictions, targets) for metric in METRICS
    }
    scales = {metric.name: metric.scale for metric in METRICS if metric.scale is not None}
    covered = {name: statistics[name] for name in scales}
    bounds = intervals(covered, predictions.groups, n_replicates, seed, scales)
    return {
        name: {"value": _value(statistic), "interval_95": bounds.get(name)}
        for name, statistic in statistics.items()
    }


def _value(statistic: Statistic) -> float | None:
    value = statistic(None)
    return float(value) if value is not None and np.isfinite(value) else None

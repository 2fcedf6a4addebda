"""The metrics of a policy: one table of names, labels, directions, scales and functions.

The table is the only list behind eval_report.json, metrics.csv, the KFP metrics, the report and the
comparison of policies. A row with a task belongs to that task alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NotRequired, TypedDict

import numpy as np

from components.evaluate.targets import Targets
from components.shared.contracts.outcomes import BINARY, MULTICLASS
from components.shared.policies.predictions import Predictions
from components.shared.stats import calibration_error, metrics, multiclass, risk_coverage
from components.shared.stats.bootstrap import Interval, Statistic, intervals, membership
from components.shared.stats.jackknife import Scale
from components.shared.stats.metrics import Bools, Floats, Weights, weighted_mean
from components.shared.stats.miscalibration import consistency_bands
from components.shared.stats.reward import expected_reward

HIGHER, LOWER = "↑", "↓"


class Entry(TypedDict):
    """A metric with its 95 % interval.

    value: None where the operating point does not exist. interval_95: None where there is none.
    calibrated_95: of a calibration error, which has no interval: (0, bound), below which 95 % of
    such samples from a calibrated model stay; None with too few groups.
    """

    value: float | None
    interval_95: Interval
    calibrated_95: NotRequired[Interval]


@dataclass(frozen=True)
class Metric:
    """One row of the scorecard.

    Attributes:
        name: key in the documents.
        label: title in the report, with fields of `Targets` in braces.
        direction: HIGHER or LOWER, the direction of improvement.
        scale: decides how the interval is computed; None for a calibration error, which has a band
            instead.
        function: value for weights (R, N), or for None, of predictions and targets.
        task: the task that has this metric; None for both.
    """

    name: str
    label: str
    direction: str
    scale: Scale | None
    function: Callable[[Predictions, Targets, Weights], Floats | float | None]
    task: str | None = None

    @property
    def on_unit(self) -> bool:
        """Whether all values lie in [0, 1]."""
        return self.scale not in (None, Scale.POSITIVE, Scale.CORRELATION)

    def label_at(self, targets: Targets) -> str:
        """Return the label with the operating points filled in."""
        return self.label.format_map(vars(targets))


def fraction(event: Bools, among: Bools, weights: Weights) -> Floats:
    """Return the fraction of `among` (N,) with the event (N,); nan where `among` is empty."""
    return metrics.ratio(
        weighted_mean(event & among, weights), weighted_mean(among, weights), np.nan
    )


# Arguments of each function: predictions p, targets t ("_" where unused), weights w.
_DECISIONS = (
    Metric(
        "accuracy",
        "Accuracy",
        HIGHER,
        Scale.PROPORTION,
        lambda p, _, w: weighted_mean(~p.error, w),
    ),
    Metric(
        "balanced_accuracy",
        "Balanced accuracy (mean recall)",
        HIGHER,
        Scale.UNIT,
        lambda p, _, w: multiclass.macro_recall(p.truth, p.decision, p.n_outcomes, w),
    ),
    Metric(
        "precision_macro",
        "Mean precision",
        HIGHER,
        Scale.UNIT,
        lambda p, _, w: multiclass.macro_precision(p.truth, p.decision, p.n_outcomes, w),
        MULTICLASS,
    ),
    Metric(
        "mcc",
        "MCC",
        HIGHER,
        Scale.CORRELATION,
        lambda p, _, w: multiclass.mcc(p.truth, p.decision, p.n_outcomes, w),
    ),
    Metric(
        "f1",
        "F1",
        HIGHER,
        Scale.UNIT,
        lambda p, _, w: metrics.f1(p.is_positive, p.says_positive, w),
        BINARY,
    ),
    Metric(
        "f1_macro",
        "Mean F1",
        HIGHER,
        Scale.UNIT,
        lambda p, _, w: multiclass.macro_f1(p.truth, p.decision, p.n_outcomes, w),
        MULTICLASS,
    ),
    Metric(
        "expected_reward",
        "Expected deployment reward",
        HIGHER,
        Scale.UNIT,
        lambda p, _, w: expected_reward(p.is_positive, p.says_positive, w),
        BINARY,
    ),
)

_RANKING = (
    Metric(
        "auroc",
        "AUROC",
        HIGHER,
        Scale.UNIT,
        lambda p, _, w: metrics.auroc(p.is_positive, p.log_odds, w),
        BINARY,
    ),
    Metric(
        "auroc_macro",
        "AUROC, mean of each class against the rest",
        HIGHER,
        Scale.UNIT,
        lambda p, _, w: multiclass.macro_ranking(metrics.auroc, p.truth, p.probabilities, w),
        MULTICLASS,
    ),
    Metric(
        "average_precision",
        "Average precision",
        HIGHER,
        Scale.UNIT,
        lambda p, _, w: metrics.average_precision(p.is_positive, p.log_odds, w),
        BINARY,
    ),
    Metric(
        "average_precision_macro",
        "Average precision, mean of each class against the rest",
        HIGHER,
        Scale.UNIT,
        lambda p, _, w: multiclass.macro_ranking(
            metrics.average_precision, p.truth, p.probabilities, w
        ),
        MULTICLASS,
    ),
    Metric(
        "coverage_at_precision",
        "Coverage at precision {precision:g}",
        HIGHER,
        Scale.QUANTILE,
        lambda p, t, w: metrics.coverage_at_precision(p.is_positive, p.log_odds, t.precision, w),
        BINARY,
    ),
)

_PROBABILITIES = (
    Metric(
        "ece_top_label",
        "ECE, top label",
        LOWER,
        None,
        lambda p, _, w: calibration_error.ece(*p.top_label, weights=w),
    ),
    Metric(
        "ece_positive_class",
        "ECE, positive class",
        LOWER,
        None,
        lambda p, _, w: calibration_error.ece_positive_class(
            p.is_positive, p.probability, weights=w
        ),
        BINARY,
    ),
    Metric(
        "ece_classwise",
        "ECE, mean over classes",
        LOWER,
        None,
        lambda p, _, w: calibration_error.ece_classwise(p.truth, p.probabilities, weights=w),
        MULTICLASS,
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
        lambda p, _, w: weighted_mean(p.squared_error, w),
        BINARY,
    ),
    Metric(
        "brier_multiclass",
        "Brier score, sum over classes (0 to 2)",
        LOWER,
        Scale.POSITIVE,
        lambda p, _, w: weighted_mean(p.squared_error, w),
        MULTICLASS,
    ),
    Metric(
        "nll", "NLL (nats)", LOWER, Scale.POSITIVE, lambda p, _, w: weighted_mean(p.log_loss, w)
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
        lambda p, _, w: weighted_mean(p.answered, w),
    ),
    Metric(
        "exit_both",
        "Fraction of answers that name both classes",
        LOWER,
        Scale.PROPORTION,
        lambda p, _, w: fraction(p.set_size > 1, p.answered, w),
        BINARY,
    ),
    Metric(
        "exit_several",
        "Fraction of answers that name several classes",
        LOWER,
        Scale.PROPORTION,
        lambda p, _, w: fraction(p.set_size > 1, p.answered, w),
        MULTICLASS,
    ),
    Metric(
        "mean_set_size",
        "Mean number of classes in an answer",
        LOWER,
        Scale.POSITIVE,
        lambda p, _, w: metrics.ratio(
            weighted_mean(p.set_size * p.answered, w), weighted_mean(p.answered, w), np.nan
        ),
        MULTICLASS,
    ),
    Metric(
        "exit_accuracy",
        "Accuracy among answered",
        HIGHER,
        Scale.PROPORTION,
        lambda p, _, w: fraction(p.covered, p.answered, w),
    ),
    Metric(
        "exit_error",
        "Error rate among answered",
        LOWER,
        Scale.PROPORTION,
        lambda p, _, w: fraction(~p.covered, p.answered, w),
    ),
    Metric(
        "exit_fnr",
        "False negative rate among answered",
        LOWER,
        Scale.PROPORTION,
        lambda p, _, w: fraction(~p.covered, p.answered & p.is_positive, w),
        BINARY,
    ),
    Metric(
        "deferred_positives",
        "Fraction of positives deferred",
        LOWER,
        Scale.PROPORTION,
        lambda p, _, w: fraction(~p.answered, p.is_positive, w),
        BINARY,
    ),
)

# Mean losses, which depend on those of errors.
LOSSES = frozenset({"brier", "nll"})

_GROUPS = {
    "Decisions": _DECISIONS,
    "Ranking by score": _RANKING,
    "Calibration of probabilities": _PROBABILITIES,
    "Selective prediction": _SELECTIVE,
    "Answers of stage 1": _ANSWERS,
}


def metric_groups(task: str) -> dict[str, tuple[Metric, ...]]:
    """Return the metrics of a task, by heading of the report."""
    return {
        heading: tuple(metric for metric in group if metric.task in (None, task))
        for heading, group in _GROUPS.items()
    }


def metrics_of(task: str) -> dict[str, Metric]:
    """Return the metrics of a task, by name."""
    return {metric.name: metric for group in metric_groups(task).values() for metric in group}


def measure(
    predictions: Predictions, *, targets: Targets, n_replicates: int, seed: int
) -> dict[str, Entry]:
    """Measure all metrics of the task, with 95 % intervals over groups.

    Args:
        predictions: of one policy.
        targets: operating points.
        n_replicates: replicates of the intervals and bands that are drawn.
        seed: of the draws; the same seed gives the same draws for every policy.

    Returns:
        By metric name: the value with its interval, or with the band of a calibration error. NLL
        and Brier score of predictions without an error have none.
    """
    table = metrics_of(predictions.outcomes.task)
    statistics: dict[str, Statistic] = {
        name: partial(metric.function, predictions, targets) for name, metric in table.items()
    }
    scales = {name: metric.scale for name, metric in table.items() if metric.scale is not None}
    bands = consistency_bands(*predictions.forecast, predictions.groups, n_replicates, seed)

    found = entries(statistics, predictions.groups, n_replicates, seed, scales, bands)

    if not predictions.error.any():
        for name in LOSSES & found.keys():
            found[name]["interval_95"] = None

    return found


def entries(
    statistics: Mapping[str, Statistic],
    groups: tuple[str, ...],
    n_replicates: int,
    seed: int,
    scales: Mapping[str, Scale],
    bands: Mapping[str, Interval] | None = None,
) -> dict[str, Entry]:
    """Return values, with the intervals of those that have a scale and the bands of the others."""
    covered = {name: statistics[name] for name in scales}
    bounds = intervals(covered, groups, n_replicates, seed, scales)

    found: dict[str, Entry] = {}
    for name, statistic in statistics.items():
        found[name] = {"value": _value(statistic), "interval_95": bounds.get(name)}
        if bands is not None and name not in scales:
            found[name]["calibrated_95"] = bands[name]

    return found


def per_group(statistic: Statistic, groups: Sequence[str]) -> Statistic:
    """Return the statistic of a random image of a random group: each group has the same weight."""
    member = membership(groups, len(groups))
    share = np.asarray(1 / np.bincount(member)[member])
    return lambda weights: statistic(share if weights is None else weights * share)


def _value(statistic: Statistic) -> float | None:
    value = statistic(None)
    return float(value) if value is not None and np.isfinite(value) else None

"""Which numbers judge a policy, what are they called, and which way is better?

The one list behind eval_report.json, metrics.csv, the KFP metrics, the report and the comparison of
policies.
"""

from dataclasses import dataclass
from functools import partial
from typing import TypedDict

import numpy as np

from components.shared.stats import calibration_error, metrics, risk_coverage
from components.shared.stats.bootstrap import Interval, Statistic, intervals
from components.shared.stats.metrics import Bools, Floats, Weights
from components.shared.stats.reward import expected_reward


@dataclass(frozen=True)
class Predictions:
    """What one policy says about N samples; each array is (N,).

    truth, decision: True for the positive class. margin: its log-odds. confidence: larger is surer
    of the decision. groups: resampled as a whole. answered: False where stage 1 defers (all True
    for a policy that never does). both: True where an answer names both classes, which is not
    wrong.
    """

    truth: Bools
    decision: Bools
    margin: Floats
    confidence: Floats
    groups: tuple[str, ...]
    answered: Bools
    both: Bools

    @property
    def probability(self) -> Floats:
        """(N,) P(positive)."""
        return metrics.sigmoid(self.margin)

    @property
    def error(self) -> Bools:
        """(N,) True where the decision is wrong."""
        wrong: Bools = self.truth != self.decision
        return wrong


class Entry(TypedDict):
    """A metric; None where the working point, or the interval, does not exist."""

    value: float | None
    interval_95: Interval


@dataclass(frozen=True)
class Targets:
    """Where working points are reported, each in (0, 1]."""

    precision: float
    risk: float
    coverage: float = 0.8


@dataclass(frozen=True)
class Row:
    """A metric's key in the documents, its title (fields of Targets filled in), its question, and
    its direction.
    """

    name: str
    title: str
    question: str
    larger_is_better: bool


_DECISIONS, _RANKING = "Are the decisions right?", "Do scores rank well?"
_EXITS = "What does stage 1 answer itself?"
_PROBABILITIES, _REJECTION = "Are probabilities honest?", "Does it know when not to answer?"
ROWS = (
    Row("accuracy", "Accuracy", _DECISIONS, True),
    Row("balanced_accuracy", "Balanced accuracy", _DECISIONS, True),
    Row("mcc", "MCC", _DECISIONS, True),
    Row("f1", "F1", _DECISIONS, True),
    Row("expected_reward", "Expected deployment reward", _DECISIONS, True),
    Row("auroc", "AUROC", _RANKING, True),
    Row("average_precision", "Average precision", _RANKING, True),
    Row("coverage_at_precision", "Coverage at precision {precision:g}", _RANKING, True),
    Row("ece_top_label", "ECE, top label", _PROBABILITIES, False),
    Row("ece_positive_class", "ECE, positive class", _PROBABILITIES, False),
    Row("ece_equal_mass", "ECE, top label, bins of equal mass", _PROBABILITIES, False),
    Row("ce_debiased", "Calibration error, top label, debiased", _PROBABILITIES, False),
    Row("mce_top_label", "MCE, top label", _PROBABILITIES, False),
    Row("brier", "Brier score", _PROBABILITIES, False),
    Row("nll", "NLL (nats)", _PROBABILITIES, False),
    Row("aurc", "AURC", _REJECTION, False),
    Row("e_aurc", "Excess AURC", _REJECTION, False),
    Row("aurc_balanced", "AURC, classes at equal weight", _REJECTION, False),
    Row("augrc", "AUGRC", _REJECTION, False),
    Row("e_augrc", "Excess AUGRC", _REJECTION, False),
    Row("augrc_balanced", "AUGRC, classes at equal weight", _REJECTION, False),
    Row("failure_auroc", "AUROC of right against wrong", _REJECTION, True),
    Row("coverage_at_risk", "Coverage at error rate {risk:g}", _REJECTION, True),
    Row("risk_at_coverage", "Error rate at coverage {coverage:g}", _REJECTION, False),
    Row("exit_rate", "Share answered (exit rate)", _EXITS, True),
    Row("exit_both", "Share of answers that name both classes", _EXITS, False),
    Row("exit_accuracy", "Accuracy among answered", _EXITS, True),
    Row("exit_error", "Error rate among answered", _EXITS, False),
    Row("exit_fnr", "False negative rate among answered", _EXITS, False),
    Row("deferred_positives", "Share of positives deferred", _EXITS, False),
)


def measure(
    predictions: Predictions, *, targets: Targets, n_replicates: int, seed: int
) -> dict[str, Entry]:
    """Every metric of ROWS with its 95 % percentile interval over groups; all on the same
    replicates.
    """
    statistics = _statistics(predictions, targets)
    bounds = intervals(statistics, predictions.groups, n_replicates, seed)
    return {
        row.name: {"value": _value(statistics[row.name]), "interval_95": bounds[row.name]}
        for row in ROWS
    }


def _value(statistic: Statistic) -> float | None:
    value = statistic(None)
    return float(value) if value is not None and np.isfinite(value) else None


def _statistics(p: Predictions, targets: Targets) -> dict[str, Statistic]:
    probability = p.probability
    correct, top = calibration_error.top_label(p.truth, probability)
    return {
        "accuracy": partial(metrics.accuracy, p.truth, p.decision),
        "balanced_accuracy": partial(metrics.balanced_accuracy, p.truth, p.decision),
        "mcc": partial(metrics.mcc, p.truth, p.decision),
        "f1": partial(metrics.f1, p.truth, p.decision),
        "expected_reward": partial(expected_reward, p.truth, p.decision),
        "auroc": partial(metrics.auroc, p.truth, p.margin),
        "average_precision": partial(metrics.average_precision, p.truth, p.margin),
        "coverage_at_precision": lambda w: metrics.coverage_at_precision(
            p.truth, p.margin, targets.precision, w
        ),
        "ece_top_label": lambda w: calibration_error.ece_top_label(p.truth, probability, weights=w),
        "ece_positive_class": lambda w: calibration_error.ece_positive_class(
            p.truth, probability, weights=w
        ),
        "ece_equal_mass": lambda w: calibration_error.ece_equal_mass(correct, top, weights=w),
        "ce_debiased": lambda w: calibration_error.ce_debiased(correct, top, weights=w),
        "mce_top_label": lambda w: calibration_error.mce(correct, top, weights=w),
        "brier": partial(metrics.brier, p.truth, probability),
        "nll": partial(metrics.nll, p.truth, p.margin),
        "aurc": partial(risk_coverage.aurc, p.confidence, p.error),
        "e_aurc": partial(risk_coverage.e_aurc, p.confidence, p.error),
        "aurc_balanced": partial(risk_coverage.aurc_balanced, p.confidence, p.error, p.truth),
        "augrc": partial(risk_coverage.augrc, p.confidence, p.error),
        "e_augrc": partial(risk_coverage.e_augrc, p.confidence, p.error),
        "augrc_balanced": partial(risk_coverage.augrc_balanced, p.confidence, p.error, p.truth),
        "failure_auroc": partial(risk_coverage.failure_auroc, p.confidence, p.error),
        "coverage_at_risk": lambda w: risk_coverage.coverage_at_risk(
            p.confidence, p.error, targets.risk, w
        ),
        "risk_at_coverage": lambda w: risk_coverage.risk_at_coverage(
            p.confidence, p.error, targets.coverage, w
        ),
        "exit_rate": lambda w: metrics.weighted_mean(p.answered, w),
        "exit_both": lambda w: _share(p.both, p.answered, w),
        "exit_accuracy": lambda w: _share(~p.error | p.both, p.answered, w),
        "exit_error": lambda w: _share(p.error & ~p.both, p.answered, w),
        "exit_fnr": lambda w: _share(~p.decision & ~p.both, p.answered & p.truth, w),
        "deferred_positives": lambda w: _share(~p.answered, p.truth, w),
    }


def _share(event: Bools, among: Bools, weights: Weights) -> Floats:
    """Share of `among` with the event; nan where there are none."""
    return metrics.ratio(
        metrics.weighted_mean(event & among, weights), metrics.weighted_mean(among, weights), np.nan
    )

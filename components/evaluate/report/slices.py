"""Metrics of the shown policy on each slice of VAL_TEST, worst first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np

from components.evaluate.report.scorecard import Metric, metrics_of
from components.evaluate.targets import Targets
from components.shared.policies.predictions import Predictions
from components.shared.stats.bootstrap import Statistic
from components.shared.stats.metrics import Integers
from components.shared.stats.slices import (
    Slice,
    SliceEstimate,
    compare_to_rest,
    measure_slices,
)

# Slices are ranked by accuracy, which every slice has; MCC needs both classes.
RANKED_BY, MINUS_REST = "accuracy", "minus_rest"
# Name -> heading of the table's column.
_ALWAYS = {RANKED_BY: "accuracy", "mcc": "MCC"}
_OF_DEFERRING = {"exit_rate": "answered", "exit_error": "error among answered"}
_DIFFERENCE = "accuracy minus the rest"
_ONE_CLASS = "one class: all images are of one"

T = TypeVar("T")


@dataclass(frozen=True)
class SliceResult:
    """One slice.

    Attributes:
        slice: its column, value and images.
        metrics: by name, with intervals that hold together over all slices.
        minus_rest: accuracy minus that of all other images.
    """

    slice: Slice
    metrics: Mapping[str, SliceEstimate]
    minus_rest: SliceEstimate

    @property
    def columns(self) -> dict[str, SliceEstimate]:
        """Estimates in the order of the table's columns."""
        return _after_ranked(self.metrics, MINUS_REST, self.minus_rest)

    @property
    def worse(self) -> bool:
        """Whether it is worse than the rest: the whole corrected interval is below zero."""
        return self.minus_rest.interval is not None and self.minus_rest.interval[1] < 0

    def to_json(self) -> dict[str, Any]:
        """Return the entry of eval_report.json."""
        return {
            "column": self.slice.column,
            "value": self.slice.value,
            "n_images": len(self.slice.rows),
            "n_groups": self.slice.n_groups,
            "worse": self.worse,
            "metrics": {name: _entry(found) for name, found in self.metrics.items()},
            "accuracy_minus_rest": _entry(self.minus_rest),
        }


@dataclass(frozen=True)
class SliceReport:
    """All slices of one policy.

    Attributes:
        kind: of the policy.
        results: worst first: those that are worse than the rest, then by accuracy; those with too
            few groups last, because their values are mostly noise.
        titles: of the metrics, by name.
    """

    kind: str
    results: Sequence[SliceResult]
    titles: Mapping[str, str]

    @property
    def headings(self) -> list[str]:
        """Headings of the columns of `SliceResult.columns`."""
        return list(_after_ranked(self.titles, MINUS_REST, _DIFFERENCE).values())

    @property
    def n_compared(self) -> int:
        """Number of slices with enough groups, for which intervals are corrected."""
        return sum(not result.slice.too_small for result in self.results)

    @property
    def n_worse(self) -> int:
        """Number of slices that are worse than the rest."""
        return sum(result.worse for result in self.results)

    def to_json(self) -> dict[str, Any]:
        """Return the section of eval_report.json."""
        return {
            "policy": self.kind,
            "correction": "bonferroni",
            "n_compared": self.n_compared,
            "slices": [result.to_json() for result in self.results],
        }


def measure_slice_report(
    kind: str,
    predictions: Predictions,
    slices: Sequence[Slice],
    *,
    targets: Targets,
    n_replicates: int,
    seed: int,
) -> SliceReport:
    """Measure a policy on each slice, and its accuracy against that of all other images.

    Args:
        kind: of the policy.
        predictions: of the policy.
        slices: of the same images.
        targets: operating points of the metrics.
        n_replicates: fewest draws of the intervals that are drawn.
        seed: of the draws.
    """
    titles = _ALWAYS if predictions.answered.all() else _ALWAYS | _OF_DEFERRING
    known = metrics_of(predictions.outcomes.task)
    table = {name: known[name] for name in titles}
    groups = predictions.groups

    by_metric: dict[str, list[SliceEstimate]] = {}
    for name, metric in table.items():
        assert metric.scale is not None, f"{name} has no interval"
        found = measure_slices(
            slices,
            partial(_statistic, metric, predictions, targets),
            groups,
            scale=metric.scale,
            n_replicates=n_replicates,
            seed=seed,
        )
        by_metric[name] = list(found)

    by_metric["mcc"] = [
        SliceEstimate(None, None, _ONE_CLASS) if _has_one_class(predictions, item) else found
        for item, found in zip(slices, by_metric["mcc"], strict=True)
    ]
    against_rest = compare_to_rest(
        slices,
        partial(_statistic, table[RANKED_BY], predictions, targets),
        groups,
        n_replicates=n_replicates,
        seed=seed,
    )

    results = [
        SliceResult(item, {name: by_metric[name][number] for name in table}, against_rest[number])
        for number, item in enumerate(slices)
    ]
    return SliceReport(kind, sorted(results, key=_order), titles)


def _after_ranked(table: Mapping[str, T], name: str, value: T) -> dict[str, T]:
    """Return a table with a further entry behind that of the metric that ranks."""
    rest = {key: entry for key, entry in table.items() if key != RANKED_BY}
    return {RANKED_BY: table[RANKED_BY], name: value, **rest}


def _order(result: SliceResult) -> tuple[bool, bool, float, str]:
    """Sort key: enough groups, worse than the rest, accuracy, name."""
    value = result.metrics[RANKED_BY].value
    accuracy = np.inf if value is None else value
    return bool(result.slice.too_small), not result.worse, accuracy, result.slice.name


def _statistic(
    metric: Metric, predictions: Predictions, targets: Targets, rows: Integers
) -> Statistic:
    return partial(metric.function, predictions.take(rows), targets)


def _has_one_class(predictions: Predictions, item: Slice) -> bool:
    return len(np.unique(predictions.truth[item.rows])) < 2


def _entry(found: SliceEstimate) -> dict[str, Any]:
    return {
        "value": found.value,
        "interval_95": found.interval,
        "reason": found.reason or None,
    }

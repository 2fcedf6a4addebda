"""The cascade: a policy answers what it can, stage 2 the images that it defers."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from components.evaluate.report.scorecard import Entry, entries, fraction
from components.shared.policies.predictions import Predictions
from components.shared.stats import multiclass
from components.shared.stats.bootstrap import Statistic, membership, paired_difference
from components.shared.stats.jackknife import Scale
from components.shared.stats.metrics import Floats, Integers, Weights, weighted_mean

_SCALES = {
    "accuracy": Scale.PROPORTION,
    "mcc": Scale.CORRELATION,
    "deferred": Scale.PROPORTION,
    "stage2_accuracy": Scale.PROPORTION,
}


@dataclass(frozen=True)
class Costs:
    """Cost of an image in each stage, in a unit of the user's; stage 1 looks at every image."""

    stage1: float
    stage2: float


@dataclass(frozen=True)
class CascadeResult:
    """One policy followed by stage 2, on VAL_TEST.

    Attributes:
        kind: of the policy.
        metrics: `accuracy` and `mcc` of all images, each with the decision of the stage that
            answers it; `deferred`, the fraction that stage 2 answers; `stage2_accuracy` among
            these; `cost` per image.
        minus_stage1: `accuracy` and `mcc` minus those of stage 1, had it decided every image, with
            paired intervals.
    """

    kind: str
    metrics: Mapping[str, Entry]
    minus_stage1: Mapping[str, Entry]

    def to_json(self) -> dict[str, Any]:
        """Return the entry of eval_report.json."""
        return {"metrics": dict(self.metrics), "minus_stage1": dict(self.minus_stage1)}


@dataclass(frozen=True)
class CascadeReport:
    """The cascades of all policies that defer.

    Attributes:
        file: name of the table of stage 2.
        sha256: of its bytes.
        costs: as the user states them.
        results: of the policies that defer an image; empty where none does.
    """

    file: str
    sha256: str
    costs: Costs
    results: tuple[CascadeResult, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the section of eval_report.json."""
        return {
            "stage2_logits": {"file": self.file, "sha256": self.sha256},
            "stage1_cost": self.costs.stage1,
            "stage2_cost": self.costs.stage2,
            "policies": {result.kind: result.to_json() for result in self.results},
        }


def measure_cascade(
    kind: str,
    predictions: Predictions,
    stage2: Integers,
    costs: Costs,
    n_replicates: int,
    seed: int,
) -> CascadeResult:
    """Measure a policy followed by stage 2.

    Args:
        kind: of the policy.
        predictions: of the policy.
        stage2: (N,) int64, number of the outcome that stage 2 decides for; only those of deferred
            images are used.
        costs: of an image in each stage.
        n_replicates: draws of the paired intervals.
        seed: of the draws.
    """
    truth, groups = predictions.truth, predictions.groups
    deferred = ~predictions.answered
    decision = np.where(deferred, stage2, predictions.decision)

    statistics: dict[str, Statistic] = {
        "accuracy": partial(weighted_mean, truth == decision),
        "mcc": partial(_mcc, predictions, decision),
        "deferred": partial(weighted_mean, deferred),
        "stage2_accuracy": partial(fraction, truth == stage2, deferred),
    }
    found = entries(statistics, groups, n_replicates, seed, _SCALES)
    found["cost"] = _cost(found["deferred"], costs)

    member = membership(groups, len(groups))
    minus_stage1: dict[str, Entry] = {}
    alone: dict[str, Statistic] = {
        "accuracy": partial(weighted_mean, ~predictions.error),
        "mcc": partial(_mcc, predictions, predictions.decision),
    }
    for name, statistic in alone.items():
        difference = paired_difference(statistics[name], statistic, member, n_replicates, seed)
        minus_stage1[name] = {"value": difference.value, "interval_95": difference.interval}

    return CascadeResult(kind, found, minus_stage1)


def _mcc(predictions: Predictions, decision: Integers, weights: Weights) -> Floats:
    return multiclass.mcc(predictions.truth, decision, predictions.n_outcomes, weights)


def _cost(deferred: Entry, costs: Costs) -> Entry:
    """Return the cost per image, which is linear in the fraction that is deferred."""
    value, interval = deferred["value"], deferred["interval_95"]
    return {
        "value": None if value is None else costs.stage1 + costs.stage2 * value,
        "interval_95": interval
        and (costs.stage1 + costs.stage2 * interval[0], costs.stage1 + costs.stage2 * interval[1]),
    }

"""How good do decisions stay when the deployment distorts the images of VAL_TEST, level by
level?
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from components.evaluate.report import page
from components.evaluate.report.scorecard import Entry
from components.shared.policies.logits import Logits
from components.shared.policies.policy import Policy
from components.shared.stats.bootstrap import Interval, intervals
from components.shared.stats.metrics import accuracy
from components.shared.stats.reward import expected_reward

_METRICS = {"accuracy": accuracy, "expected_reward": expected_reward}
UNDISTORTED = "as stored"


@dataclass(frozen=True)
class Robustness:
    """By name of the level, first the images as they are: each metric with its 95 % interval over
    groups.
    """

    kind: str
    levels: dict[str, dict[str, Entry]]

    def to_json(self) -> dict[str, Any]:
        """For eval_report.json."""
        return dict(self.levels)


def measure_robustness(
    kind: str, logits: Logits, policy: Policy, n_replicates: int, seed: int
) -> Robustness | None:
    """A policy's decisions on distorted images; None where the logits hold none. All on the same
    replicates.
    """
    if logits.corrupted is None:
        return None
    truth = logits.labels == policy.positive
    said = {UNDISTORTED: logits.logits} | {
        f"level {i}": values for i, values in enumerate(logits.corrupted)
    }
    functions = {
        (level, name): partial(metric, truth, policy.decision(values))
        for level, values in said.items()
        for name, metric in _METRICS.items()
    }
    found = intervals(
        {f"{level}/{name}": f for (level, name), f in functions.items()},
        logits.groups,
        n_replicates,
        seed,
    )
    return Robustness(
        kind,
        {
            level: {
                name: _entry(functions[level, name](None), found[f"{level}/{name}"])
                for name in _METRICS
            }
            for level in said
        },
    )


def robustness_section(results: Sequence[Robustness]) -> str:
    """HTML: a row for each policy and metric, a column for each level; empty without any."""
    if not results:
        return ""
    head = ["policy, metric", *results[0].levels]
    rows = [
        page.row(
            f"{r.kind}, {name.replace('_', ' ')}",
            [page.measured(**entries[name]) for entries in r.levels.values()],
        )
        for r in results
        for name in _METRICS
    ]
    note = (
        "The deployment crops (level 0), rotates and crops at random (1), fades, lowers the"
        " resolution (2), and adds noise and blur (3), all as JPEG of quality 75. Stored squares"
        " are taken for 4:3 photographs. Every image counts, also where a policy would defer."
    )
    return page.section(
        "Robustness", page.table("Decisions under the deployment's distortions", head, rows), note
    )


def _entry(value: Any, bounds: Interval) -> Entry:
    number = float(value)
    return {"value": None if number != number else number, "interval_95": bounds}

"""Views saved by early exit on days that its thresholds have not seen.

Threshold (largest MCC) and exits are fitted on the out-of-fold margins of five days and applied to
the sixth.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from components.shared.contracts.outcomes import Outcomes
from components.shared.policies.early_exit import (
    decisions_of_margin,
    fit_early_exit,
    logits_of_margin,
)
from components.shared.policies.fitting.sweep import best_threshold, sweep
from components.shared.policies.logits import Logits, Views
from components.shared.policies.policy import Policy, softmax_policy
from components.shared.stats.bootstrap import intervals
from components.shared.stats.jackknife import Scale
from tests.studies.features import CLASSES
from tests.studies.heads import Scores

MAX_CHANGED = 0.005
_REPLICATES = 2000
Bools = npt.NDArray[np.bool_]


def early_exit_table(
    truth: Bools, days: npt.NDArray[np.str_], places: tuple[str, ...], found: Mapping[str, Scores]
) -> Iterator[str]:
    """Return Markdown rows of certain exits, fitted exits, and the best exits in hindsight.

    Fitted exits change at most 0.5 % of the decisions; those in hindsight, with all decisions
    known, are the most that any threshold on the full image's margin could save.
    """
    yield "| row | positive answers | exits | views used | 95 % | equal decisions | 95 % |"
    yield "|---|---|---|---|---|---|---|"
    for name, scores in found.items():
        if scores.full_image_margin is None or scores.views is None:
            continue
        for label, max_changed in (("certain", 0.0), ("fitted", MAX_CHANGED)):
            if label == "certain" and scores.views.lower_bound is None:
                continue
            exits, equal, positive = _across_days(truth, days, places, scores, max_changed)
            looked = 1 - exits * (1 - 1 / scores.views.count)
            cells = [
                f"{values.mean():.4f} | {_interval(values, places)}" for values in (looked, equal)
            ]
            yield f"| {name} | {positive:.3f} | {label} | {' | '.join(cells)} |"
        exits = _in_hindsight(truth, scores)
        looked = 1 - exits * (1 - 1 / scores.views.count)
        yield f"| {name} |  | in hindsight | {looked:.4f} |  | {1 - MAX_CHANGED:.4f} |  |"


def _across_days(
    truth: Bools,
    days: npt.NDArray[np.str_],
    places: tuple[str, ...],
    scores: Scores,
    max_changed: float,
) -> tuple[Bools, Bools, float]:
    """Return (N,) exits, (N,) whether decisions equal those of all views, fraction of positives."""
    assert scores.full_image_margin is not None
    exits, equal, positive = np.zeros(len(truth), bool), np.ones(len(truth), bool), 0
    for day in np.unique(days):
        out = days == day
        best = best_threshold(sweep(truth[~out], scores.margin[~out], "mcc"))
        policy = softmax_policy(Outcomes.of(CLASSES, "binary", CLASSES[1]), best.threshold)
        early_exit = fit_early_exit(
            policy, _logits(scores, truth, places, ~out), max_changed=max_changed, seed=0
        )
        assert early_exit is not None
        exits[out] = early_exit.exits(scores.full_image_margin[out])
        full = _decisions(policy, scores.margin[out])
        equal[out] = ~exits[out] | (
            decisions_of_margin(policy, scores.full_image_margin[out]) == full
        )
        positive += int((full == "Roadwork").sum())
    return exits, equal, positive / len(truth)


def _in_hindsight(truth: Bools, scores: Scores) -> float:
    """Return the largest fraction of images with the lowest margins and at most 0.5 % positives.

    Margins are those of the full images; the limit of positives is relative to all images.
    """
    assert scores.full_image_margin is not None
    positive = scores.margin > best_threshold(sweep(truth, scores.margin, "mcc")).threshold
    found = np.cumsum(positive[np.argsort(scores.full_image_margin)])
    return float(np.searchsorted(found, int(MAX_CHANGED * len(truth)) + 1) / len(truth))


def _decisions(policy: Policy, margin: npt.NDArray[np.float64]) -> npt.NDArray[np.str_]:
    return policy.decide(logits_of_margin(margin, policy.outcomes.positive_index))


def _logits(scores: Scores, truth: Bools, places: tuple[str, ...], rows: Bools) -> Logits:
    assert scores.full_image_margin is not None
    assert scores.views is not None
    chosen = np.flatnonzero(rows)
    ids = tuple(f"{row:016x}" for row in chosen)
    return Logits(
        split="VAL_CALIB",
        class_names=CLASSES,
        sample_ids=ids,
        labels=truth[chosen].astype(np.int64),
        logits=logits_of_margin(scores.margin[chosen], 1).astype(np.float32),
        groups=tuple(places[row] for row in chosen),
        sources=("",) * len(chosen),
        paths=ids,
        full_image_margin=scores.full_image_margin[chosen].astype(np.float32),
        views=Views(scores.views.count, scores.views.lower_bound),
    )


def _interval(values: npt.NDArray[np.generic], places: tuple[str, ...]) -> str:
    def mean(weights: npt.NDArray[np.float64] | None) -> npt.NDArray[np.float64]:
        found = values.mean() if weights is None else (weights @ values) / weights.sum(axis=1)
        return np.asarray(found)

    found = intervals({"": mean}, places, _REPLICATES, 0, {"": Scale.PROPORTION})[""]
    low, high = found or (np.nan, np.nan)
    return f"{low:.4f} to {high:.4f}"

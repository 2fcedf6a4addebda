"""Early exit on VAL_TEST: views saved by looking at the full image first, and decisions it left."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from components.evaluate.report.scorecard import Entry, entries, per_group
from components.shared.contracts.errors import ArtifactError
from components.shared.policies.early_exit import EarlyExit, decisions_of_margin
from components.shared.policies.logits import Logits
from components.shared.policies.policy import Policy
from components.shared.stats.bootstrap import Statistic
from components.shared.stats.jackknife import Scale
from components.shared.stats.metrics import weighted_mean


@dataclass(frozen=True)
class EarlyExitResult:
    """Early exit of one policy, with 95 % intervals over groups.

    Attributes:
        kind: of the policy.
        n_views: views of an image without early exit.
        views_per_image: mean number of views with early exit.
        saved: fraction of views that early exit skips.
        unchanged: probability that the decision on a random image of a random group is that of all
            views.
        unchanged_per_image: the same of a random image; nothing is certified about it.
        certified: lower bound of `unchanged`, with probability at least 1 - delta.
        delta: probability with which the bound may fail.
    """

    kind: str
    n_views: int
    views_per_image: float
    saved: Entry
    unchanged: Entry
    unchanged_per_image: Entry
    certified: float
    delta: float

    def to_json(self) -> dict[str, Any]:
        """Return the entry of eval_report.json, under the keys of schema 1."""
        return {
            "kind": self.kind,
            "n_views": self.n_views,
            "views_per_image": self.views_per_image,
            "saved": self.saved["value"],
            "saved_interval_95": self.saved["interval_95"],
            "equal": self.unchanged_per_image["value"],
            "equal_interval_95": self.unchanged_per_image["interval_95"],
            "equal_per_group": self.unchanged["value"],
            "equal_per_group_interval_95": self.unchanged["interval_95"],
            "promised": self.certified,
            "delta": self.delta,
        }


def measure_early_exit(
    kind: str, logits: Logits, policy: Policy, early_exit: EarlyExit, n_replicates: int, seed: int
) -> EarlyExitResult:
    """Measure the early exit of a policy on VAL_TEST.

    Args:
        kind: of the policy.
        logits: of all views, with the full images' margins.
        policy: decides on either.
        early_exit: when the full image's margin suffices.
        n_replicates: replicates of the bootstrap over groups.
        seed: of the resampling.

    Raises:
        ArtifactError: the logits are those of a single-view model.
    """
    if logits.full_image_margin is None:
        raise ArtifactError(
            f"{kind}_policy was fitted for several views, the logits of VAL_TEST are of one"
        )

    margin = logits.full_image_margin.astype(np.float64)
    exits = early_exit.exits(margin)
    saved = np.where(exits, 1 - 1 / early_exit.n_views, 0.0)
    unchanged = ~exits | (decisions_of_margin(policy, margin) == policy.decide(logits.logits))

    is_unchanged = partial(weighted_mean, unchanged)
    statistics: dict[str, Statistic] = {
        "saved": partial(weighted_mean, saved),
        "unchanged": per_group(is_unchanged, logits.groups),
        "unchanged per image": is_unchanged,
    }
    scales = {
        "saved": Scale.UNIT,
        "unchanged": Scale.PROPORTION,
        "unchanged per image": Scale.PROPORTION,
    }
    found = entries(statistics, logits.groups, n_replicates, seed, scales)

    return EarlyExitResult(
        kind=kind,
        n_views=early_exit.n_views,
        views_per_image=float(early_exit.n_views * (1 - saved.mean())),
        saved=found["saved"],
        unchanged=found["unchanged"],
        unchanged_per_image=found["unchanged per image"],
        certified=1 - early_exit.max_changed,
        delta=early_exit.delta,
    )

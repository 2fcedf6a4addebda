"""How many views did looking at the whole image first save on VAL_TEST, and how many decisions
stayed the same?
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from components.evaluate.report import page
from components.shared.contracts.errors import ArtifactError
from components.shared.policies.early_exit import EarlyExit, decisions_of_margin
from components.shared.policies.logits import Logits
from components.shared.policies.policy import Policy
from components.shared.stats.bootstrap import Interval, intervals
from components.shared.stats.metrics import weighted_mean


@dataclass(frozen=True)
class EarlyExitResult:
    """Shares in [0, 1] with 95 % intervals over groups: views not looked at, and images with the
    same decision.
    """

    kind: str
    n_views: int
    views_per_image: float
    saved: float
    saved_interval_95: Interval
    equal: float
    equal_interval_95: Interval
    promised: float
    delta: float

    def to_json(self) -> dict[str, Any]:
        """For eval_report.json."""
        return asdict(self)


def measure_early_exit(
    kind: str, logits: Logits, policy: Policy, early_exit: EarlyExit, n_replicates: int, seed: int
) -> EarlyExitResult:
    """On logits that carry the whole images' margins. Raises ArtifactError for others."""
    if logits.full_image_margin is None:
        raise ArtifactError(
            f"{kind}_policy was fitted for several views, the logits of VAL_TEST are of one"
        )
    whole = logits.full_image_margin.astype(np.float64)
    exits = early_exit.exits(whole)
    saved = np.where(exits, 1 - 1 / early_exit.n_views, 0.0)
    equal = ~exits | (decisions_of_margin(policy, whole) == policy.decide(logits.logits))
    metrics = {"saved": partial(weighted_mean, saved), "equal": partial(weighted_mean, equal)}
    found = intervals(metrics, logits.groups, n_replicates, seed)
    return EarlyExitResult(
        kind=kind,
        n_views=early_exit.n_views,
        views_per_image=float(early_exit.n_views * (1 - saved.mean())),
        saved=float(saved.mean()),
        saved_interval_95=found["saved"],
        equal=float(equal.mean()),
        equal_interval_95=found["equal"],
        promised=1 - early_exit.max_changed,
        delta=early_exit.delta,
    )


def early_exit_section(results: Sequence[EarlyExitResult]) -> str:
    """HTML: a row for each policy of a model of several views; empty without any."""
    if not results:
        return ""
    head = ["policy", "views per image", "views saved", "equal decisions", "promised"]
    rows = [
        page.row(
            r.kind,
            [
                f"<b>{r.views_per_image:.2f}</b> of {r.n_views}",
                page.measured(r.saved, r.saved_interval_95),
                page.measured(r.equal, r.equal_interval_95),
                f"≥ {r.promised:.3f}, sure to {1 - r.delta:g}",
            ],
        )
        for r in results
    ]
    note = (
        "The whole image is looked at first, its tiles only where they could still change the"
        " decision. Metrics above are those of all views."
    )
    return page.section(
        "Early exit", page.table("Views looked at, and decisions kept", head, rows), note
    )

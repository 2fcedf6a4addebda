"""The comparison of a challenger with the champion: one pre-stated test on the same images."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from components.promote_bundle.config import BETTER, PromoteConfig
from components.promote_bundle.objectives import Objective
from components.shared.policies.predictions import Predictions
from components.shared.stats.bootstrap import membership
from components.shared.stats.jackknife import MIN_GROUPS
from components.shared.stats.one_sided import paired_contributions


def in_words(difference: float) -> str:
    """Return a difference of a metric for a sentence that says what is above or below it."""
    return f"{difference:g}" if difference else "zero"


@dataclass(frozen=True)
class Comparison:
    """What the test says.

    Attributes:
        objective: what is compared.
        challenger: the metric of the challenger.
        champion: the metric of the champion.
        gain: of the challenger; positive is better, also of an area that should be small.
        margin: what the gain must exceed.
        level: probability with which a gain of no more than the margin passes.
        p_value: of a gain of no more than the margin; None where it cannot be tested.
        lower_bound: of the true gain at confidence 1 - level; None where there is none.
        n_images: of VAL_TEST that were compared.
        n_groups: of these images.
    """

    objective: Objective
    challenger: float
    champion: float
    gain: float
    margin: float
    level: float
    p_value: float | None
    lower_bound: float | None
    n_images: int
    n_groups: int

    @property
    def passes(self) -> bool:
        """Whether the gain exceeds the margin at the level."""
        return self.p_value is not None and self.p_value <= self.level

    @property
    def sentence(self) -> str:
        """The result in words."""
        bound = (
            "no lower bound" if self.lower_bound is None else f"at least {self.lower_bound:+.4f}"
        )
        verdict = "is" if self.passes else "is not shown to be"
        return (
            f"{self.objective.label} {self.challenger:.4f} against {self.champion:.4f}: the gain of"
            f" {self.gain:+.4f} ({bound} at confidence {1 - self.level:.6g}) {verdict}"
            f" above {in_words(self.margin)}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the entry of a decision's evidence."""
        return {
            "objective": self.objective.name,
            "label": self.objective.label,
            "larger_is_better": self.objective.sign > 0,
            "challenger": finite(self.challenger),
            "champion": finite(self.champion),
            "gain": finite(self.gain),
            "margin": self.margin,
            "level": self.level,
            "p_value": self.p_value,
            "lower_bound": self.lower_bound,
            "passes": self.passes,
            "n_images": self.n_images,
            "n_groups": self.n_groups,
        }


def margin_of(config: PromoteConfig) -> float:
    """Return what the gain must exceed."""
    return config.min_gain if config.promotion == BETTER else -config.max_loss


def compare(
    config: PromoteConfig,
    objective: Objective,
    challenger: Predictions,
    champion: Predictions,
    level: float,
) -> Comparison:
    """Test whether the challenger's gain exceeds the margin.

    Args:
        config: the margin, and the seed of blocks of groups.
        objective: what is compared.
        challenger: predictions on N images.
        champion: predictions on the same images, in the same order.
        level: of the test.
    """
    rows = np.arange(len(challenger.truth))
    margin = margin_of(config)
    of_challenger, of_champion = objective.value(challenger), objective.value(champion)
    tested = paired_contributions(
        objective.score_of(challenger, rows),
        objective.score_of(champion, rows),
        membership(challenger.groups, len(rows)),
        config.seed,
    )
    bound = None if tested is None else tested.lower_bound(level)

    return Comparison(
        objective=objective,
        challenger=of_challenger,
        champion=of_champion,
        gain=objective.sign * (of_challenger - of_champion),
        margin=margin,
        level=level,
        p_value=None if tested is None else tested.p_value(margin),
        lower_bound=None if bound is None else finite(bound),
        n_images=len(rows),
        n_groups=challenger.n_groups,
    )


def finite(value: float) -> float | None:
    """Return the value, or None where it is not finite, which no document may hold."""
    return value if np.isfinite(value) else None


def too_few_groups(n_groups: int) -> str:
    """Return why so many groups cannot be compared; empty where they can."""
    if n_groups >= MIN_GROUPS:
        return ""
    return f"{n_groups} groups of VAL_TEST can be compared, a test needs {MIN_GROUPS}"

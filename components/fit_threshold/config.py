"""Options of fit_threshold: the objective of the threshold, and its limits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from components.fit_threshold.sweep import OBJECTIVES
from components.shared.contracts.config import adjusted, option
from components.shared.contracts.options import (
    BootstrapConfig,
    EarlyExitConfig,
    RiskLevelConfig,
    TaskConfig,
)
from components.shared.contracts.outcomes import MULTICLASS, NEEDS_BINARY
from components.shared.policies.config import AttemptConfig


@dataclass(frozen=True, kw_only=True)
class FitThresholdConfig(
    EarlyExitConfig, RiskLevelConfig, TaskConfig, BootstrapConfig, AttemptConfig
):
    """Options of the threshold."""

    GUARANTEE = frozenset({"max_fnr", "max_fnr_delta"})

    objective: str = option(
        "mcc",
        "Binary task: metric that the threshold maximises, in expectation under the calibrated"
        " probabilities of VAL_CALIB.",
        choices=tuple(OBJECTIVES),
    )
    max_fnr: float = option(
        1.0,
        "Binary task: highest false negative rate; 1 sets no limit. It is that of the images of"
        " VAL_CALIB, which new images exceed as often as not, unless max_fnr_delta is set.",
        ge=0,
        le=1,
    )
    max_fnr_delta: float | None = option(
        None,
        "The false negative rate of a random positive image of a random group is at most max_fnr,"
        " with probability 1 - max_fnr_delta; none: the rate of the images of VAL_CALIB is.",
        gt=0,
        lt=1,
        unset="none",
    )
    alpha: float = adjusted(
        RiskLevelConfig,
        "alpha",
        help="Multiclass task: the error rate among the answered images of VAL_CALIB is at most"
        " this; no guarantee.",
    )

    def guarantee(self) -> dict[str, Any]:
        """Return the limit of the false negative rate; empty where it is that of the sample."""
        return {} if self.max_fnr_delta is None else super().guarantee()

    def task_problems(self, task: str, class_names: Sequence[str] | None = None) -> list[str]:
        """Return the options that need a positive class, where there is none."""
        problems = super().task_problems(task, class_names)
        if self.max_fnr < 1 and task == MULTICLASS:
            problems.append(f"max_fnr={self.max_fnr:g} {NEEDS_BINARY}")
        return problems

"""Options of the fits: the objective of a threshold, and the guarantees of gate and SCRC."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from components.shared.calibration.config import CalibratorConfig
from components.shared.contracts.config import adjusted, option
from components.shared.contracts.options import (
    BootstrapConfig,
    EarlyExitConfig,
    RiskLevelConfig,
    TaskConfig,
)
from components.shared.contracts.outcomes import MULTICLASS, NEEDS_BINARY
from components.shared.policies.config import AttemptConfig, SelectiveConfig
from components.shared.policies.fitting.sweep import OBJECTIVES


@dataclass(frozen=True, kw_only=True)
class ThresholdConfig(EarlyExitConfig, RiskLevelConfig, TaskConfig, BootstrapConfig, AttemptConfig):
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


@dataclass(frozen=True, kw_only=True)
class GateConfig(SelectiveConfig, CalibratorConfig):
    """Options of the gate's policy."""


@dataclass(frozen=True, kw_only=True)
class ScrcConfig(SelectiveConfig, CalibratorConfig, EarlyExitConfig):
    """Options of the policy with selective conformal risk control."""

    GUARANTEE = SelectiveConfig.GUARANTEE | {"class_wise", "set_valued"}

    class_wise: bool = option(
        False, "Limit the error rate of each answer separately, with a threshold for each."
    )
    set_valued: bool = option(
        False,
        "Answer with both classes if neither alone is certain enough; images beyond min_coverage"
        " are deferred.",
    )

    def check(self) -> list[str]:
        """Class-wise control needs the error rate; sets need a coverage and exclude class-wise."""
        problems = super().check()
        for name in ("class_wise", "set_valued"):
            if getattr(self, name) and self.risk != "error":
                problems.append(f"{name}=true needs risk='error', got risk={self.risk!r}")

        if self.set_valued and self.class_wise:
            problems.append("set_valued=true and class_wise=true exclude each other; choose one")

        if self.set_valued and self.min_coverage == 0:
            problems.append(
                "set_valued=true needs min_coverage > 0: the fraction of images that must get an"
                " answer"
            )

        return problems

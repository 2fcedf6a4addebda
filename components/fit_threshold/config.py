"""Options of fit_threshold: the objective of the threshold, and its limits."""

from dataclasses import dataclass

from components.fit_threshold.sweep import OBJECTIVES
from components.shared.contracts.config import option
from components.shared.contracts.options import (
    BootstrapConfig,
    EarlyExitConfig,
    TaskConfig,
)


@dataclass(frozen=True, kw_only=True)
class FitThresholdConfig(EarlyExitConfig, TaskConfig, BootstrapConfig):
    """Options of the threshold."""

    objective: str = option(
        "mcc",
        "Metric that the threshold maximises, in expectation under the calibrated probabilities of"
        " VAL_CALIB.",
        choices=tuple(OBJECTIVES),
    )
    max_fnr: float = option(
        1.0,
        "Highest false negative rate; 1 sets no limit. It is that of the images of VAL_CALIB, which"
        " new images exceed as often as not, unless max_fnr_delta is set.",
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

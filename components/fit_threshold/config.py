"""Options of fit_threshold: the objective of the threshold, and its limits."""

from dataclasses import dataclass

from components.fit_threshold.sweep import OBJECTIVES
from components.shared.contracts.config import option
from components.shared.contracts.options import (
    BootstrapConfig,
    EarlyExitConfig,
    PositiveClassConfig,
)


@dataclass(frozen=True, kw_only=True)
class FitThresholdConfig(EarlyExitConfig, PositiveClassConfig, BootstrapConfig):
    """Options of the threshold."""

    objective: str = option(
        "mcc",
        "Metric that the threshold maximises on VAL_CALIB.",
        choices=tuple(OBJECTIVES),
    )
    max_fnr: float = option(
        1.0, "Highest false negative rate on VAL_CALIB; 1 sets no limit.", ge=0, le=1
    )

"""Options of the comparison of calibrators."""

from dataclasses import dataclass

from components.shared.calibration.config import CalibratorConfig
from components.shared.contracts.options import (
    BootstrapConfig,
    TaskConfig,
)


@dataclass(frozen=True, kw_only=True)
class CompareCalibratorsConfig(CalibratorConfig, TaskConfig, BootstrapConfig):
    """Options of the comparison of calibrators."""

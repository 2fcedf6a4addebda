"""Options of the comparison of calibrators."""

from dataclasses import dataclass

from components.shared.contracts.options import (
    BootstrapConfig,
    CalibratorConfig,
    PositiveClassConfig,
)


@dataclass(frozen=True, kw_only=True)
class CompareCalibratorsConfig(CalibratorConfig, PositiveClassConfig, BootstrapConfig):
    """Options of the comparison of calibrators."""

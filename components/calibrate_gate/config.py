"""Options of calibrate_gate: the calibrated confidence and the guarantee of the gate's policy."""

from dataclasses import dataclass

from components.shared.calibration.config import CalibratorConfig
from components.shared.policies.config import SelectiveConfig


@dataclass(frozen=True, kw_only=True)
class CalibrateGateConfig(SelectiveConfig, CalibratorConfig):
    """Options of the gate's policy."""

"""Options of calibrate_gate: the calibrated confidence and the guarantee of the gate's policy."""

from dataclasses import dataclass

from components.shared.policies.fitting.config import GateConfig


@dataclass(frozen=True, kw_only=True)
class CalibrateGateConfig(GateConfig):
    """Options of the gate's policy."""

"""Options of calibrate_scrc: the risk, and whether each answer has a threshold of its own."""

from dataclasses import dataclass

from components.shared.policies.fitting.config import ScrcConfig


@dataclass(frozen=True, kw_only=True)
class CalibrateScrcConfig(ScrcConfig):
    """Options of the policy with selective conformal risk control."""

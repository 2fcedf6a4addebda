"""With which calibrated scale of confidence does a gate answer?"""

from dataclasses import dataclass

from components.shared.contracts.config import option
from components.shared.policies.config import SelectiveConfig


@dataclass(frozen=True, kw_only=True)
class CalibrateGateConfig(SelectiveConfig):
    """Parameters of the gate's policy, phase 3."""

    calibrator: str = option(
        "auto",
        "Map from logits to probabilities; auto: the simplest within one standard error of the best"
        " cross-fitted NLL.",
        choices=(
            "auto",
            "temperature",
            "platt",
            "vector",
            "beta",
            "dirichlet",
            "isotonic",
            "histogram",
        ),
    )

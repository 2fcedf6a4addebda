"""Option of the phases that fit a calibrator."""

from dataclasses import dataclass

from components.shared.calibration.compare import AUTO
from components.shared.calibration.registry import CLASSES
from components.shared.contracts.config import Config, option


@dataclass(frozen=True, kw_only=True)
class CalibratorConfig(Config):
    """The map from logits to probabilities."""

    calibrator: str = option(
        AUTO,
        "Map from logits to probabilities; auto: the simplest, none included, within one standard"
        " error of the best cross-fitted NLL.",
        choices=(AUTO, *CLASSES),
    )

"""Which risk is controlled, at which level, and for each answer apart?"""

from dataclasses import dataclass

from components.shared.config import option
from components.shared.selective.config import SelectiveConfig


@dataclass(frozen=True, kw_only=True)
class CalibrateScrcConfig(SelectiveConfig):
    """Parameters of phase 5."""

    class_wise: bool = option(False, "Limit the error rate of each answer apart, with a threshold for each.")
    calibrator: str = option(
        "auto",
        "Map from logits to probabilities; auto: the simplest within one standard error of the best cross-fitted NLL.",
        choices=("auto", "temperature", "platt", "vector", "beta", "dirichlet", "isotonic", "histogram"),
    )

    def check(self) -> list[str]:
        """Class-wise control is about answers, the false negative rate about one class."""
        if self.class_wise and self.risk != "error":
            return [f"class_wise=true needs risk='error', got risk={self.risk!r}"]
        return []

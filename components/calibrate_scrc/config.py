"""Which risk is controlled, at which level, and for each answer apart?"""

from dataclasses import dataclass

from components.shared.contracts.config import option
from components.shared.policies.config import SelectiveConfig


@dataclass(frozen=True, kw_only=True)
class CalibrateScrcConfig(SelectiveConfig):
    """Parameters of phase 5."""

    class_wise: bool = option(
        False, "Limit the error rate of each answer apart, with a threshold for each."
    )
    set_valued: bool = option(
        False,
        "Answer with both classes where one is not certain enough; images beyond min_coverage are"
        " deferred.",
    )
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
    early_exit_error: float = option(
        0.005,
        "Several views: largest share of decisions that the whole image alone may change; 0: exits"
        " only where sure.",
        ge=0,
        lt=1,
    )

    def check(self) -> list[str]:
        """Class-wise control is about answers, the false negative rate about one class; sets need a
        coverage.
        """
        problems = []
        for name in ("class_wise", "set_valued"):
            if getattr(self, name) and self.risk != "error":
                problems.append(f"{name}=true needs risk='error', got risk={self.risk!r}")
        if self.set_valued and self.class_wise:
            problems.append("set_valued=true and class_wise=true exclude each other; choose one")
        if self.set_valued and self.min_coverage == 0:
            problems.append(
                "set_valued=true needs min_coverage > 0: the share of images that must get an"
                " answer"
            )
        return problems

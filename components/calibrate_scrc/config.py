"""Options of calibrate_scrc: the risk, and whether each answer has a threshold of its own."""

from dataclasses import dataclass

from components.shared.calibration.config import CalibratorConfig
from components.shared.contracts.config import option
from components.shared.contracts.options import EarlyExitConfig
from components.shared.policies.config import SelectiveConfig


@dataclass(frozen=True, kw_only=True)
class CalibrateScrcConfig(SelectiveConfig, CalibratorConfig, EarlyExitConfig):
    """Options of the policy with selective conformal risk control."""

    GUARANTEE = SelectiveConfig.GUARANTEE | {"class_wise", "set_valued"}

    class_wise: bool = option(
        False, "Limit the error rate of each answer separately, with a threshold for each."
    )
    set_valued: bool = option(
        False,
        "Answer with both classes if neither alone is certain enough; images beyond min_coverage"
        " are deferred.",
    )

    def check(self) -> list[str]:
        """Class-wise control needs the error rate; sets need a coverage and exclude class-wise."""
        problems = super().check()
        for name in ("class_wise", "set_valued"):
            if getattr(self, name) and self.risk != "error":
                problems.append(f"{name}=true needs risk='error', got risk={self.risk!r}")

        if self.set_valued and self.class_wise:
            problems.append("set_valued=true and class_wise=true exclude each other; choose one")

        if self.set_valued and self.min_coverage == 0:
            problems.append(
                "set_valued=true needs min_coverage > 0: the fraction of images that must get an"
                " answer"
            )

        return problems

"""Options of the evaluation on VAL_TEST."""

from dataclasses import dataclass

from components.evaluate.targets import Targets
from components.shared.contracts.config import option
from components.shared.contracts.options import (
    BootstrapConfig,
    RiskLevelConfig,
    SlicesConfig,
    TaskConfig,
)
from components.shared.policies.config import BundledPolicyConfig


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(
    BundledPolicyConfig, TaskConfig, RiskLevelConfig, SlicesConfig, BootstrapConfig
):
    """Options of the evaluation."""

    target_precision: float = option(0.95, "Precision at which coverage is reported.", gt=0, le=1)
    n_hard_examples: int = option(12, "Number of worst errors in the report.", ge=0, le=200)

    @property
    def targets(self) -> Targets:
        """Operating points of the report: at `target_precision`, and at the error rate `alpha`."""
        return Targets(self.target_precision, self.alpha)

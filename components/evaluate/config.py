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

_MOST_COST = 1e9


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(
    BundledPolicyConfig, TaskConfig, RiskLevelConfig, SlicesConfig, BootstrapConfig
):
    """Options of the evaluation."""

    target_precision: float = option(0.95, "Precision at which coverage is reported.", gt=0, le=1)
    stage2_logits: str = option(
        "",
        "CSV, local or s3://, with the logits of stage 2 on VAL_TEST: sample_id, and a column for"
        " each class.",
    )
    stage2_fingerprint: str = option(
        "", "Digest of that file's listing; set by the pipeline for its cache."
    )
    stage1_cost: float = option(
        0.0, "Cost of an image in stage 1, in any unit.", ge=0, le=_MOST_COST
    )
    stage2_cost: float = option(
        1.0, "Cost of an image that stage 2 answers, in the same unit.", ge=0, le=_MOST_COST
    )
    n_hard_examples: int = option(12, "Number of worst errors in the report.", ge=0, le=200)

    @property
    def targets(self) -> Targets:
        """Operating points of the report: at `target_precision`, and at the error rate `alpha`."""
        return Targets(self.target_precision, self.alpha)

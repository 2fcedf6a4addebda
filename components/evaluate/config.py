"""What is measured on VAL_TEST, and how surely?"""

from dataclasses import dataclass

from components.evaluate.report.scorecard import Targets
from components.shared.contracts.config import Config, option


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(Config):
    """Parameters of the evaluation."""

    policy: str = option(
        "softmax",
        "What the bundle carries: softmax never defers; gate and scrc defer, with a guarantee. All"
        " are compared.",
        choices=("softmax", "gate", "scrc"),
    )
    positive_class: str = option("Roadwork", "The class that P(positive) and the margin refer to.")
    n_bootstrap: int = option(2000, "Bootstrap replicates of every interval.", ge=100, le=100_000)
    target_precision: float = option(0.95, "Precision at which coverage is reported.", gt=0, le=1)
    alpha: float = option(
        0.05,
        "The risk among answered images is at most this, with probability 1 - delta.",
        gt=0,
        lt=1,
    )
    n_hard_examples: int = option(12, "Worst errors shown in the report.", ge=0, le=200)
    seed: int = option(
        0, "Seed of initialisation, batches, augmentation, dropout, salts and resampling.", ge=0
    )

    @property
    def targets(self) -> Targets:
        """Where working points are reported: at `target_precision`, and at the error rate
        `alpha`.
        """
        return Targets(self.target_precision, self.alpha)

"""Options of the policies that defer: what they guarantee, and which samples decide."""

from dataclasses import dataclass

from components.shared.contracts.config import Config, option


@dataclass(frozen=True, kw_only=True)
class SelectiveConfig(Config):
    """Parameters that the policies with a guarantee share."""

    policy: str = option(
        "softmax",
        "What the bundle carries: softmax never defers; gate and scrc defer, with a guarantee. All"
        " are compared.",
        choices=("softmax", "gate", "scrc"),
    )
    risk: str = option(
        "error",
        "What is limited among answered images: error rate, false negative rate.",
        choices=("error", "fnr"),
    )
    alpha: float = option(
        0.05,
        "The risk among answered images is at most this, with probability 1 - delta.",
        gt=0,
        lt=1,
    )
    delta: float = option(
        0.1,
        "Probability with which the promise on risk may fail; the same for coverage.",
        gt=0,
        lt=1,
    )
    min_coverage: float = option(
        0.0,
        "Least coverage, by its lower bound; above 0 risk and coverage take delta / 2 each.",
        ge=0,
        lt=1,
    )
    multiple_testing: str = option(
        "fixed_sequence",
        "How many thresholds are tested at once.",
        choices=("fixed_sequence", "holm", "bonferroni"),
    )
    tuning_fraction: float = option(
        0.3,
        "Share of VAL_CALIB's groups that fit calibrator and gate scale and propose thresholds.",
        gt=0,
        lt=1,
    )
    positive_class: str = option("Roadwork", "The class that P(positive) and the margin refer to.")
    seed: int = option(
        0, "Seed of initialisation, batches, augmentation, dropout, salts and resampling.", ge=0
    )

    @property
    def risk_delta(self) -> float:
        """The share of delta that the risk takes."""
        return self.delta / 2 if self.min_coverage > 0 else self.delta

"""What makes a threshold the best one?"""

from dataclasses import dataclass

from components.shared.contracts.config import Config, option


@dataclass(frozen=True, kw_only=True)
class FitThresholdConfig(Config):
    """Parameters of phase 2."""

    objective: str = option(
        "mcc",
        "What the threshold maximises on VAL_CALIB.",
        choices=("mcc", "f1", "balanced_accuracy"),
    )
    max_fnr: float = option(
        1.0, "Ceiling of the false negative rate on VAL_CALIB; 1: none.", ge=0, le=1
    )
    early_exit_error: float = option(
        0.005,
        "Several views: largest share of decisions that the whole image alone may change; 0: exits"
        " only where sure.",
        ge=0,
        lt=1,
    )
    positive_class: str = option("Roadwork", "The class that P(positive) and the margin refer to.")
    n_bootstrap: int = option(2000, "Bootstrap replicates of every interval.", ge=100, le=100_000)
    seed: int = option(
        0, "Seed of initialisation, batches, augmentation, dropout, salts and resampling.", ge=0
    )

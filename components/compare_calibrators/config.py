"""How are probabilities made honest?"""

from dataclasses import dataclass

from components.shared.contracts.config import Config, option


@dataclass(frozen=True, kw_only=True)
class CompareCalibratorsConfig(Config):
    """Parameters of the comparison of calibrators."""

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
    positive_class: str = option("Roadwork", "The class that P(positive) and the margin refer to.")
    n_bootstrap: int = option(2000, "Bootstrap replicates of every interval.", ge=100, le=100_000)
    seed: int = option(
        0, "Seed of initialisation, batches, augmentation, dropout, salts and resampling.", ge=0
    )

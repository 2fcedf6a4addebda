"""Options of the extraction of features."""

from dataclasses import dataclass

from components.shared.contracts.config import adjusted, option
from components.shared.contracts.options import (
    AugmentationConfig,
    ComputeConfig,
    InputConfig,
    ResumableConfig,
    SeedConfig,
)


@dataclass(frozen=True, kw_only=True)
class ExtractFeaturesConfig(
    ResumableConfig, ComputeConfig, AugmentationConfig, InputConfig, SeedConfig
):
    """What decides the features of a frozen backbone; `configure` takes it from the training."""

    needed: bool = option(
        True, "Whether heads are trained on a frozen backbone; false: both artifacts are empty."
    )
    seed: int = adjusted(SeedConfig, "seed", help="Seed of the augmentation.")

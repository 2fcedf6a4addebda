"""Options of the extraction of features."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from components.shared.contracts.adaptations import AGGREGATIONS
from components.shared.contracts.config import adjusted, option
from components.shared.contracts.options import (
    AugmentationConfig,
    ComputeConfig,
    LaunchConfig,
    SeedConfig,
    TileConfig,
)

if TYPE_CHECKING:
    from components.shared.vision.view_spec import ViewSpec


@dataclass(frozen=True, kw_only=True)
class ExtractFeaturesConfig(
    LaunchConfig, ComputeConfig, AugmentationConfig, TileConfig, SeedConfig
):
    """What decides the features of a frozen backbone; `configure` takes it from the training."""

    needed: bool = option(
        True, "Whether heads are trained on a frozen backbone; false: both artifacts are empty."
    )
    seed: int = adjusted(SeedConfig, "seed", help="Seed of the augmentation.")

    def views(self) -> "ViewSpec | None":
        """Return how images are cut into views; None for the whole image alone.

        Features do not depend on how the views' margins are aggregated.
        """
        if self.tile_grid is None:
            return None

        # Not above: its import loads pydantic, which no command needs that constructs nothing.
        from components.shared.vision.view_spec import ViewSpec

        return ViewSpec(
            grid=self.tile_grid,
            overlap=self.tile_overlap,
            flips=self.tile_flips,
            size=self.tile_size,
            aggregation=AGGREGATIONS[0],
            top_k=1,
            sharpness=1.0,
            positive_class=None,
        )

"""The specification of an image's views: the full image, and grid x grid tiles that cover it.

A small object fills more of a tile than of the full image, at the cost of one pass of the backbone
per view.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Protocol

from pydantic import Field

from components.shared.contracts.adaptations import AGGREGATIONS


class _Tiles(Protocol):
    """Options of a phase that say how images are cut."""

    @property
    def tile_grid(self) -> int | None: ...
    @property
    def tile_overlap(self) -> float: ...
    @property
    def tile_flips(self) -> bool: ...
    @property
    def tile_size(self) -> int: ...


@dataclass(frozen=True)
class ViewSpec:
    """How an image is cut into views, and how their margins are aggregated.

    Attributes:
        grid: Tiles per row and per column.
        overlap: Fraction of a tile's side that its neighbour covers too.
        flips: Whether every view is also seen mirrored.
        size: Side of every view in pixels.
        aggregation: One of AGGREGATIONS.
        top_k: Number of margins that `topk_mean` averages.
        sharpness: r of `lse` (log-sum-exp).
        positive_class: The margin is the logit of this class minus that of the other; None: every
            class has a margin, its log-odds against the rest.
    """

    grid: Annotated[int, Field(ge=1, le=16)]
    overlap: Annotated[float, Field(ge=0, lt=1)]
    flips: bool
    size: Annotated[int, Field(ge=1, le=2048)]
    aggregation: Annotated[str, Field(pattern=f"^({'|'.join(AGGREGATIONS)})$")]
    top_k: Annotated[int, Field(ge=1)]
    sharpness: Annotated[float, Field(gt=0)]
    positive_class: str | None

    @classmethod
    def of(
        cls,
        tiles: _Tiles,
        *,
        aggregation: str = AGGREGATIONS[0],
        top_k: int = 1,
        sharpness: float = 1.0,
        positive_class: str | None = None,
    ) -> "ViewSpec | None":
        """Return how images are cut by a phase's options; None for the whole image alone.

        Features do not depend on how the views' margins are aggregated, which has defaults.
        """
        if tiles.tile_grid is None:
            return None

        return cls(
            grid=tiles.tile_grid,
            overlap=tiles.tile_overlap,
            flips=tiles.tile_flips,
            size=tiles.tile_size,
            aggregation=aggregation,
            top_k=top_k,
            sharpness=sharpness,
            positive_class=positive_class,
        )

    @property
    def count(self) -> int:
        """Number V of views of one image."""
        return (1 + self.grid**2) * (2 if self.flips else 1)

    @property
    def lower_bound(self) -> float | None:
        """Least difference of an image's margin and any one view's; None if there is no bound.

        Maximum and noisy-or only grow with further views; log-sum-exp loses at most log(V) / r to
        views with a very negative margin.
        """
        if self.aggregation in ("max", "noisy_or"):
            return 0.0
        return -math.log(self.count) / self.sharpness if self.aggregation == "lse" else None


def tile_boxes(image_size: int, views: ViewSpec) -> list[tuple[int, int, int]]:
    """Return (left, top, side) in pixels of every tile, row by row.

    Every pixel of the square image is in at least one tile.
    """
    side = math.ceil(image_size / (1 + (views.grid - 1) * (1 - views.overlap)))
    n_steps = max(views.grid - 1, 1)
    starts = [round(i * (image_size - side) / n_steps) for i in range(views.grid)]
    return [(left, top, side) for top in starts for left in starts]


def view_box(image_size: int, views: ViewSpec | None, number: int) -> tuple[int, int, int, bool]:
    """Return (left, top, side) in pixels of a view, and whether it is mirrored; 0 is the image."""
    boxes = [(0, 0, image_size)]
    if views is not None:
        boxes += tile_boxes(image_size, views)
    return *boxes[number % len(boxes)], number >= len(boxes)

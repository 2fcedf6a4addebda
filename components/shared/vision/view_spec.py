"""Which parts of an image does the model look at? The whole image first, then grid x grid tiles
that cover it exactly.

A small object fills more of a tile than of the whole, at the price of one pass of the backbone per
view.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

AGGREGATIONS = ("max", "topk_mean", "lse", "noisy_or", "attention")


@dataclass(frozen=True)
class ViewSpec:
    """How an image is cut, and how what is said of its views becomes what is said of the image.

    overlap: share of a tile's side that its neighbour covers too. size: side of every view in
    pixels. top_k and sharpness (r of log-sum-exp) belong to aggregations of theirs; the margin is
    `positive_class` minus the other.
    """

    grid: int
    overlap: float
    flips: bool
    size: int
    aggregation: str
    top_k: int
    sharpness: float
    positive_class: str

    @property
    def count(self) -> int:
        """V: views of one image."""
        return (1 + self.grid**2) * (2 if self.flips else 1)

    @property
    def lower_bound(self) -> float | None:
        """What an image's margin exceeds at least, relative to any one view's; None where there is
        no bound.

        Maximum and noisy-or only grow with further views; log-sum-exp loses at most log(V) / r to
        views that say no.
        """
        if self.aggregation in ("max", "noisy_or"):
            return 0.0
        return -math.log(self.count) / self.sharpness if self.aggregation == "lse" else None


def tile_boxes(image_size: int, views: ViewSpec) -> list[tuple[int, int, int]]:
    """(left, top, side) in pixels of every tile, by rows; every pixel of the square image is in at
    least one.
    """
    side = math.ceil(image_size / (1 + (views.grid - 1) * (1 - views.overlap)))
    steps = max(views.grid - 1, 1)
    starts = [round(i * (image_size - side) / steps) for i in range(views.grid)]
    return [(left, top, side) for top in starts for left in starts]


def read_views(checkpoint: Path) -> ViewSpec | None:
    """How the classifier of a verified checkpoint cuts images; None where it sees them as a
    whole.
    """
    document = json.loads((checkpoint / "classifier.json").read_text(encoding="utf-8"))
    return ViewSpec(**document["views"]) if "views" in document else None

"""What are the pixels of an image's views? The whole image first, then its tiles, then all of them
mirrored.
"""

import torch
from torch.nn import functional as F

from components.shared.vision.view_spec import ViewSpec, tile_boxes


def cut(
    x_BCHW: torch.Tensor, views: ViewSpec, *, first: int = 0, last: int | None = None
) -> torch.Tensor:
    """float32 (B, 3, S, S) in [0, 1] -> (B, V, 3, s, s).

    Resized by antialiased bicubic interpolation, as when an image is decoded. `first` and `last`
    ask for some of them.
    """
    image_size = x_BCHW.shape[-1]
    boxes = [(0, 0, image_size), *tile_boxes(image_size, views)]
    wanted = range(views.count)[first:last]
    parts = []
    for number in wanted:
        left, top, side = boxes[number % len(boxes)]
        part = _resized(x_BCHW[..., top : top + side, left : left + side], views.size)
        parts.append(part.flip(-1) if number >= len(boxes) else part)
    return torch.stack(parts, dim=1)


def _resized(x_BCHW: torch.Tensor, size: int) -> torch.Tensor:
    if x_BCHW.shape[-1] == size:
        return x_BCHW
    resized = F.interpolate(
        x_BCHW, (size, size), mode="bicubic", antialias=True, align_corners=False
    )
    return resized.clamp_(0, 1)

"""The pixels of an image's views: the full image, then its tiles, then all of them mirrored."""

import torch
from torch.nn import functional as F

from components.shared.vision.view_spec import ViewSpec, view_box


def cut_views(
    x_BCHW: torch.Tensor, views: ViewSpec, *, first: int = 0, last: int | None = None
) -> torch.Tensor:
    """Return the views of each image, resized by antialiased bicubic interpolation.

    The interpolation is that of decoding an image (`components.shared.data.decode`).

    Args:
        x_BCHW: (B, 3, S, S) float32 in [0, 1].
        views: How an image is cut into V views of side s.
        first: Number of the first view to return.
        last: Number of the view after the last one to return; None: all views from `first`.

    Returns:
        (B, V, 3, s, s) float32 in [0, 1], or fewer views between `first` and `last`.
    """
    parts = []

    for number in range(views.count)[first:last]:
        left, top, side, mirrored = view_box(x_BCHW.shape[-1], views, number)
        part = _resize(x_BCHW[..., top : top + side, left : left + side], views.size)
        parts.append(part.flip(-1) if mirrored else part)

    return torch.stack(parts, dim=1)


def _resize(x_BCHW: torch.Tensor, size: int) -> torch.Tensor:
    if x_BCHW.shape[-1] == size:
        return x_BCHW
    resized = F.interpolate(
        x_BCHW, (size, size), mode="bicubic", antialias=True, align_corners=False
    )
    return resized.clamp_(0, 1)

"""Crops of self-supervised training, augmented as DINOv2's and MAE's authors do.

Random resized crop with its aspect, flip, colour jitter and blur (DINOv2's `DataAugmentationDINO`,
after Grill et al. 2020, arXiv 2006.07733, appendix B). Left out are shifts of the hue, greyscale
and solarisation: features that do not change with the colour lose what roadwork is told by.
Parameters are drawn for a whole global batch and indexed by batch slot, like those of
`vision.augmentation`, which explains why no library does it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from components.shared.vision.arithmetic import single_precision
from components.shared.vision.augmentation import (
    adjust_colour,
    blur,
    copied_to,
)

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

_MAX_ASPECT = 4 / 3  # of a crop, width / height; the smallest is its inverse
_N_ATTEMPTS = 10  # to find a crop of such an area and aspect inside the image
_SIGMA = (0.1, 2.0)  # of the blur, in pixels


@dataclass(frozen=True)
class _Kind:
    """Ranges and probabilities of one kind of crop.

    Attributes:
        area: Least and largest fraction of the image's area.
        p_colour: Probability of colour jitter.
        p_blur: Probability of blur.
    """

    area: tuple[float, float]
    p_colour: float = 0.8
    p_blur: float = 0.5


KINDS = {
    "first_large": _Kind((0.32, 1.0), p_blur=1.0),
    "second_large": _Kind((0.32, 1.0), p_blur=0.1),
    "small": _Kind((0.05, 0.32)),
    # MAE's, whose target are the pixels: crop and flip alone.
    "plain": _Kind((0.2, 1.0), p_colour=0.0, p_blur=0.0),
}
# Jitter of brightness, contrast and saturation: factors in 1 - x to 1 + x.
_JITTER = np.array([0.4, 0.4, 0.2])


@dataclass(frozen=True)
class CropParameters:
    """Random parameters of B crops; the first axis of every array has length B.

    Attributes:
        sides: (B, 2) width and height, as fractions of the image's side.
        centre: (B, 2) horizontal and vertical offset of the centre, in [-1, 1].
        flip: (B,) whether the crop is mirrored horizontally.
        colour: (B, 3) factors of brightness, contrast and saturation.
        sigma: (B,) standard deviation of the Gaussian blur in pixels; 0: no blur.
    """

    sides: Floats
    centre: Floats
    flip: Bools
    colour: Floats
    sigma: Floats

    def take(self, rows: npt.NDArray[np.int64]) -> "CropParameters":
        """Return the parameters of the crops `rows`."""
        return CropParameters(**{name: values[rows] for name, values in vars(self).items()})

    @classmethod
    def adjacent(cls, kinds: Sequence["CropParameters"]) -> "CropParameters":
        """Return parameters of k B crops from those of k kinds; an image's crops are adjacent."""
        stacked = {
            name: np.stack([vars(kind)[name] for kind in kinds], axis=1) for name in vars(kinds[0])
        }
        return cls(**{name: x.reshape(-1, *x.shape[2:]) for name, x in stacked.items()})


def draw(rng: np.random.Generator, count: int, kind: str) -> CropParameters:
    """Draw the parameters of `count` crops of one of KINDS."""
    ranges = KINDS[kind]
    sides = _draw_sides(rng, count, ranges.area)
    centre = rng.uniform(-1.0, 1.0, (count, 2)) * (1.0 - sides)
    flip = rng.random(count) < 0.5

    jittered = rng.random(count) < ranges.p_colour
    colour = 1 + jittered[:, None] * _JITTER * rng.uniform(-1.0, 1.0, (count, 3))
    sigma = (rng.random(count) < ranges.p_blur) * rng.uniform(*_SIGMA, count)

    return CropParameters(
        sides=sides.astype(np.float32),
        centre=centre.astype(np.float32),
        flip=flip,
        colour=colour.astype(np.float32),
        sigma=sigma.astype(np.float32),
    )


def apply(
    images: torch.Tensor, parameters: CropParameters, size: int, *, oversampling: int = 1
) -> torch.Tensor:
    """Return k crops of each image, augmented by their own parameters; always in float32.

    Args:
        images: (B, S, S, 3) uint8.
        parameters: Parameters of k B crops; those of an image are adjacent.
        size: Side of the crops in pixels.
        oversampling: Samples per pixel in each direction. Where `size` is much smaller than the
            crop, more than one prevents aliasing.

    Returns:
        (k B, 3, size, size) float32 in [0, 1].
    """
    with single_precision(images.device):
        x_BCHW = images.permute(0, 3, 1, 2).float().div_(255)
        x_BCHW = _resample(x_BCHW, parameters, size * oversampling)
        if oversampling > 1:
            x_BCHW = F.avg_pool2d(x_BCHW, oversampling)
        return _recolour(x_BCHW, parameters).clamp_(0, 1)


def _draw_sides(
    rng: np.random.Generator, count: int, area: tuple[float, float]
) -> npt.NDArray[np.float64]:
    """Return widths and heights (count, 2): the first attempt that fits into the image.

    The whole image where none does.
    """
    areas = rng.uniform(*area, (_N_ATTEMPTS, count))
    limit = math.log(_MAX_ASPECT)
    aspects = np.exp(rng.uniform(-limit, limit, (_N_ATTEMPTS, count)))
    sides = np.sqrt(np.stack([areas * aspects, areas / aspects], axis=2))

    fits = sides.max(axis=2) <= 1
    found = sides[fits.argmax(axis=0), np.arange(count)]
    return np.where(fits.max(axis=0)[:, None], found, 1.0)


def _resample(x_BCHW: torch.Tensor, parameters: CropParameters, size: int) -> torch.Tensor:
    """Crop and flip in one bilinear resampling: (k B, 3, size, size)."""
    n_images, n_channels = x_BCHW.shape[:2]
    n_crops = len(parameters.flip) // n_images
    (width, height), (dx, dy) = parameters.sides.T, parameters.centre.T
    zero = np.zeros_like(width)
    mirrored = np.where(parameters.flip, -width, width)

    # (2, 3, k B): the affine map from coordinates of the result to coordinates of the image.
    rows = np.array([[mirrored, zero, dx], [zero, height, dy]], dtype=np.float32)
    theta = copied_to(x_BCHW.device, rows.transpose(2, 0, 1))
    grid = F.affine_grid(theta, [len(theta), n_channels, size, size], align_corners=False)

    # An image's crops one below the other, so that the image is not copied for each.
    grid = grid.view(n_images, n_crops * size, size, 2)
    crops = F.grid_sample(x_BCHW, grid, mode="bilinear", padding_mode="border", align_corners=False)
    crops = crops.view(n_images, n_channels, n_crops, size, size).transpose(1, 2)
    return crops.reshape(-1, n_channels, size, size)


def _recolour(x_BCHW: torch.Tensor, parameters: CropParameters) -> torch.Tensor:
    """Jitter the colours and blur; only the crops that drew a change pay for it."""
    device = x_BCHW.device

    jittered = np.flatnonzero((parameters.colour != 1).any(axis=1))
    if len(jittered):
        rows = copied_to(device, jittered)
        x_BCHW[rows] = adjust_colour(x_BCHW[rows], copied_to(device, parameters.colour[jittered]))

    blurred = np.flatnonzero(parameters.sigma)
    if len(blurred):
        rows = copied_to(device, blurred)
        x_BCHW[rows] = blur(x_BCHW[rows], copied_to(device, parameters.sigma[blurred]))

    return x_BCHW

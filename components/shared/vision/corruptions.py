"""What does the deployment do to an image before a model gets to see it? Its distortions, at levels
0 to 3.

Level 0 crops the central square. Level 1 rotates by up to 20 degrees and crops a random square;
level 2 may also fade colours and contrast and lose resolution, level 3 more of it, and noise and
blur. All come as 224 x 224 pixels, JPEG quality 75. The validator flips nothing. (NATIX
StreetVision subnet, natix/validator, January 2026.)

A stored image has lost its aspect ratio: it is taken for a 4:3 photograph.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from components.shared.vision import augmentation as augment

LEVELS = (0, 1, 2, 3)
_SIZE, _QUALITY, _DEGREES, _TRIES = 224, 75, 20.0, 10
_ASPECT = 4 / 3
# Strengths 1 and 2 of each distortion; strength 0 is none.
_SATURATION, _CONTRAST, _FACTOR, _KERNEL, _VARIANCE = (
    (0.4, 0.3),
    (0.85, 0.725),
    (2, 3),
    (7, 9),
    (0.001, 0.002),
)
_LUMINANCE = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
# RGB in [0, 1] to studio-range YCbCr in 0..255 (ITU-R BT.601); noise is added there.
_TO_YCBCR = torch.tensor(
    [[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]],
    dtype=torch.float64,
)


@dataclass(frozen=True)
class Distortion:
    """Random parameters of N images at one level; every array has length N."""

    level: int
    radians: npt.NDArray[np.float64]
    area: npt.NDArray[np.float64]  # (N, 10): share of the image that a try to crop takes
    place: npt.NDArray[np.float64]  # (N, 10, 2): where in what is left over, in [0, 1]
    strength: npt.NDArray[np.int64]  # (N, 5): saturation, contrast, resolution, noise, blur
    noise_seed: npt.NDArray[np.int64]

    def at(self, rows: npt.NDArray[np.int64]) -> "Distortion":
        """The parameters of some of the images."""
        chosen = {name: values[rows] for name, values in vars(self).items() if name != "level"}
        return Distortion(self.level, **chosen)


def draw(rng: np.random.Generator, count: int, level: int) -> Distortion:
    """Draw the parameters of `count` images at a level of LEVELS."""
    angle = math.radians(_DEGREES)
    highest = np.array([max(level - 1, 0)] * 3 + [2 * (level == 3)] * 2)
    return Distortion(
        level=level,
        radians=rng.uniform(-angle, angle, count),
        area=rng.uniform(0.2, 1.0, (count, _TRIES)),
        place=rng.random((count, _TRIES, 2)),
        strength=rng.integers(0, highest + 1, (count, 5)),
        noise_seed=rng.integers(0, 2**62, count),
    )


def distort(images: torch.Tensor, parameters: Distortion, size: int) -> torch.Tensor:
    """uint8 (B, S, S, 3) -> float32 (B, 3, size, size) in [0, 1], each by its own parameters,
    squeezed as stored.
    """
    square = images.permute(0, 3, 1, 2).float().div_(255)
    frames = F.interpolate(
        square, (square.shape[2], round(square.shape[3] * _ASPECT)), mode="bilinear"
    )
    if parameters.level > 0:
        frames = _rotated(frames, parameters.radians)
    cropped = torch.cat([_cropped(frames[i : i + 1], parameters, i) for i in range(len(frames))])
    for row, strengths in enumerate(parameters.strength):
        cropped[row] = _degraded(cropped[row], strengths.tolist(), int(parameters.noise_seed[row]))
    quality = torch.full((len(cropped),), _QUALITY, device=images.device)
    sent = augment.jpeg(cropped, quality)
    if size == _SIZE:
        return sent
    return F.interpolate(
        sent, (size, size), mode="bicubic", antialias=True, align_corners=False
    ).clamp_(0, 1)


def saturated(x_CHW: torch.Tensor, strength: int) -> torch.Tensor:
    """(3, H, W) in [0, 1] with colours moved towards grey, in whole steps of 1 / 255."""
    wide = x_CHW.double()
    grey = torch.einsum("chw,c->hw", wide, _LUMINANCE.to(wide.device))
    return _whole(255 * (grey + (wide - grey) * _SATURATION[strength - 1]))


def contrasted(x_CHW: torch.Tensor, strength: int) -> torch.Tensor:
    """(3, H, W) in [0, 1], darker, in whole steps of 1 / 255."""
    return _whole(x_CHW.double() * 255 * _CONTRAST[strength - 1])


def _degraded(x_CHW: torch.Tensor, strengths: list[int], noise_seed: int) -> torch.Tensor:
    saturation, contrast, resolution, noise, blur = strengths
    if saturation:
        x_CHW = saturated(x_CHW, saturation)
    if contrast:
        x_CHW = contrasted(x_CHW, contrast)
    if resolution:
        small = _SIZE // _FACTOR[resolution - 1]
        reduced = F.interpolate(x_CHW[None], (small, small), mode="bilinear", align_corners=False)
        x_CHW = F.interpolate(reduced, (_SIZE, _SIZE), mode="bilinear", align_corners=False)[0]
    if noise:
        x_CHW = _noisy(x_CHW, math.sqrt(_VARIANCE[noise - 1]), noise_seed)
    return _blurred(x_CHW, _KERNEL[blur - 1]) if blur else x_CHW


def _rotated(x_BCHW: torch.Tensor, radians: npt.NDArray[np.float64]) -> torch.Tensor:
    """About the centre, nearest neighbour, black outside, in the frame's own aspect ratio."""
    height, width = x_BCHW.shape[2:]
    cosine, sine = np.cos(radians), np.sin(radians)
    zero = np.zeros_like(cosine)
    rows = [[cosine, -sine * height / width, zero], [sine * width / height, cosine, zero]]
    theta = torch.from_numpy(np.array(rows, dtype=np.float32).transpose(2, 0, 1)).to(x_BCHW.device)
    grid = F.affine_grid(theta, list(x_BCHW.shape), align_corners=False)
    return F.grid_sample(x_BCHW, grid, mode="nearest", padding_mode="zeros", align_corners=False)


def _cropped(frame_1CHW: torch.Tensor, parameters: Distortion, row: int) -> torch.Tensor:
    height, width = frame_1CHW.shape[2:]
    side, left, top = height, (width - height) // 2, 0
    tries = (
        zip(parameters.area[row], parameters.place[row], strict=True)
        if parameters.level > 0
        else ()
    )
    for area, (x, y) in tries:
        wanted = round(math.sqrt(area * height * width))
        if (
            0 < wanted <= height
        ):  # else the validator draws again, and in the end takes the central square
            side, left, top = wanted, round(x * (width - wanted)), round(y * (height - wanted))
            break
    crop = frame_1CHW[..., top : top + side, left : left + side]
    resized = F.interpolate(
        crop, (_SIZE, _SIZE), mode="bilinear", antialias=True, align_corners=False
    )
    return resized.clamp_(0, 1)


def _noisy(x_CHW: torch.Tensor, deviation: float, seed: int) -> torch.Tensor:
    """Gaussian noise in YCbCr, from a generator of its own on the CPU, so that every device draws
    the same.
    """
    noise = torch.randn(
        x_CHW.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    added = torch.einsum("kc,chw->khw", torch.linalg.inv(_TO_YCBCR), 255 * deviation * noise)
    return _whole(255 * (x_CHW.double() + added.to(x_CHW.device)))


def _blurred(x_CHW: torch.Tensor, kernel: int) -> torch.Tensor:
    offsets = torch.arange(kernel, device=x_CHW.device) - kernel // 2
    weights = torch.exp(-0.5 * (offsets / (kernel / 6)) ** 2)
    weights = (weights / weights.sum()).expand(3, 1, -1)
    padded = F.pad(x_CHW[None], [kernel // 2] * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, weights[..., None], groups=3), weights[:, :, None], groups=3)[
        0
    ]


def _whole(values: torch.Tensor) -> torch.Tensor:
    """(3, H, W) on a scale of 255 -> [0, 1], cut to whole steps as an 8-bit image is."""
    return values.clamp(0, 255).floor().div(255).float()

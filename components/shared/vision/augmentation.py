"""What may happen to a street image between the camera and the model? Random distortions, torch
only.

Parameters are drawn for a whole global batch and indexed by slot (see the training loop), pixels
are processed in batches. `moderate` and `aggressive` cover what the deployment does to images:
crop, rotation with black corners, colour, blur, noise, JPEG; plus horizontal flips, which leave the
label as it is.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Strength:
    min_scale: float  # of the image area kept by the crop
    degrees: float
    colour: float  # factor in [1 - colour, 1 + colour]
    p_blur: float
    p_noise: float
    p_jpeg: float
    min_quality: int
    max_scale: float = 1.0


LEVELS = {
    "moderate": _Strength(0.6, 10.0, 0.25, 0.1, 0.1, 0.25, 60),
    "aggressive": _Strength(0.2, 20.0, 0.5, 0.3, 0.3, 0.5, 30),
    # Views of self-supervised training: DINOv2's large and small crops, and MAE's crop without
    # further distortion.
    "global": _Strength(0.32, 0.0, 0.4, 0.5, 0.0, 0.0, 95),
    "local": _Strength(0.05, 0.0, 0.4, 0.5, 0.0, 0.0, 95, 0.32),
    "crop": _Strength(0.2, 0.0, 0.0, 0.0, 0.0, 0.0, 95),
}
_MAX_BLUR_SIGMA, _MAX_NOISE = 2.0, 0.06
_BLUR_RADIUS = 4  # pixels: two of the largest sigma


@dataclass(frozen=True)
class Augmentation:
    """Random parameters of B images; every array has length B."""

    crop: (
        Floats  # (B, 3): scale of the side, horizontal and vertical offset of the centre in [-1, 1]
    )
    flip: npt.NDArray[np.bool_]
    radians: Floats
    colour: Floats  # (B, 3): brightness, contrast, saturation factors
    sigma: Floats  # blur, pixels; 0: none
    noise: Floats  # standard deviation; 0: none
    noise_seed: npt.NDArray[np.int64]
    quality: npt.NDArray[np.int64]  # JPEG quality; 0: none

    def at(self, batch_slots: npt.NDArray[np.int64]) -> "Augmentation":
        """The parameters of some of the images."""
        return Augmentation(**{name: values[batch_slots] for name, values in vars(self).items()})


def draw(rng: np.random.Generator, count: int, level: str) -> Augmentation:
    """Draw the parameters of `count` images at a level of LEVELS."""
    strength = LEVELS[level]

    def sometimes(probability: float, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.where(rng.random(count) < probability, values, 0.0)

    scale = np.sqrt(rng.uniform(strength.min_scale, strength.max_scale, count))
    centre = rng.uniform(-1.0, 1.0, (count, 2)) * (1.0 - scale)[:, None]
    angle = math.radians(strength.degrees)
    return Augmentation(
        crop=np.column_stack([scale, centre]).astype(np.float32),
        flip=rng.random(count) < 0.5,
        radians=rng.uniform(-angle, angle, count).astype(np.float32),
        colour=rng.uniform(1 - strength.colour, 1 + strength.colour, (count, 3)).astype(np.float32),
        sigma=sometimes(strength.p_blur, rng.uniform(0.3, _MAX_BLUR_SIGMA, count)).astype(
            np.float32
        ),
        noise=sometimes(strength.p_noise, rng.uniform(0.01, _MAX_NOISE, count)).astype(np.float32),
        noise_seed=rng.integers(0, 2**62, count),
        quality=sometimes(strength.p_jpeg, rng.uniform(strength.min_quality, 95, count)).astype(
            np.int64
        ),
    )


def apply(
    images: torch.Tensor,
    parameters: Augmentation,
    size: int | None = None,
    *,
    oversampling: int = 1,
) -> torch.Tensor:
    """uint8 (B, S, S, 3) -> float32 (B, 3, S, S) in [0, 1], each image distorted by its own
    parameters.

    `size` in pixels replaces S in the result; where that is much less than what is cropped,
    `oversampling` keeps fine structure from turning into false coarse one: so many samples each way
    make a pixel. Always in float32, also under autocast.
    """
    with torch.autocast(images.device.type, enabled=False):
        return _applied(images, parameters, size or images.shape[1], oversampling)


def _applied(
    images: torch.Tensor, parameters: Augmentation, size: int, oversampling: int
) -> torch.Tensor:
    x_BCHW = images.permute(0, 3, 1, 2).float().div_(255)
    x_BCHW = _geometry(x_BCHW, parameters, size * oversampling)
    if oversampling > 1:
        x_BCHW = F.avg_pool2d(x_BCHW, oversampling)
    if (parameters.colour != 1).any():
        x_BCHW = _colour(x_BCHW, torch.from_numpy(parameters.colour).to(images.device))
    for values, function in (
        (parameters.sigma, _blur),
        (parameters.noise, None),
        (parameters.quality, jpeg),
    ):
        chosen = np.flatnonzero(values)
        if not len(chosen):
            continue
        part = x_BCHW[chosen]
        amount = torch.from_numpy(values[chosen]).to(images.device)
        x_BCHW[chosen] = (
            function(part, amount)
            if function
            else _noise(part, amount, parameters.noise_seed[chosen])
        )
    return x_BCHW.clamp_(0, 1)


def _geometry(x_BCHW: torch.Tensor, parameters: Augmentation, size: int) -> torch.Tensor:
    """Crop, flip and rotation in one resampling; outside is black, as in the deployment."""
    cosine, sine = np.cos(parameters.radians), np.sin(parameters.radians)
    scale, dx, dy = parameters.crop.T
    mirror = np.where(parameters.flip, -1.0, 1.0)
    rows = [
        [scale * cosine * mirror, -scale * sine, dx],
        [scale * sine * mirror, scale * cosine, dy],
    ]
    theta = torch.from_numpy(np.array(rows, dtype=np.float32).transpose(2, 0, 1)).to(x_BCHW.device)
    grid = F.affine_grid(theta, [*x_BCHW.shape[:2], size, size], align_corners=False)
    return F.grid_sample(x_BCHW, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _colour(x_BCHW: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    brightness, contrast, saturation = (factors[:, i].view(-1, 1, 1, 1) for i in range(3))
    x_BCHW = (x_BCHW * brightness).clamp_(0, 1)
    grey = _luminance(x_BCHW)
    x_BCHW = ((x_BCHW - grey.mean(dim=(2, 3), keepdim=True)) * contrast).add_(
        grey.mean(dim=(2, 3), keepdim=True)
    )
    x_BCHW = x_BCHW.clamp_(0, 1)
    grey = _luminance(x_BCHW)
    return ((x_BCHW - grey) * saturation).add_(grey).clamp_(0, 1)


def _luminance(x_BCHW: torch.Tensor) -> torch.Tensor:
    weights = torch.tensor([0.299, 0.587, 0.114], device=x_BCHW.device).view(1, 3, 1, 1)
    return (x_BCHW * weights).sum(dim=1, keepdim=True)


def _blur(x_BCHW: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Gaussian blur with a sigma per image: two grouped one-dimensional convolutions."""
    count, channels, height, width = x_BCHW.shape
    offsets = torch.arange(-_BLUR_RADIUS, _BLUR_RADIUS + 1, device=x_BCHW.device)
    kernel = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(channels, 0)
    flat = F.pad(
        x_BCHW.reshape(1, count * channels, height, width), [_BLUR_RADIUS] * 4, mode="reflect"
    )
    flat = F.conv2d(flat, kernel[:, None, :, None], groups=count * channels)
    flat = F.conv2d(flat, kernel[:, None, None, :], groups=count * channels)
    return flat.view(count, channels, height, width)


def _noise(
    x_BCHW: torch.Tensor, deviation: torch.Tensor, seeds: npt.NDArray[np.int64]
) -> torch.Tensor:
    """Gaussian pixel noise from a generator per image, on the CPU so that every device draws the
    same.
    """
    shape = x_BCHW.shape[1:]
    noise = torch.stack(
        [torch.randn(shape, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
    )
    return x_BCHW + noise.to(x_BCHW.device) * deviation.view(-1, 1, 1, 1)


# ITU-T T.81, Annex K: example quantisation tables for luminance and chrominance.
_LUMA = torch.tensor(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    dtype=torch.float32,
)
_CHROMA = torch.full((8, 8), 99.0)
_CHROMA[:4, :4] = torch.tensor(
    [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
)
_FREQUENCY = torch.arange(8, dtype=torch.float32)
_DCT = torch.cos((2 * _FREQUENCY[None, :] + 1) * _FREQUENCY[:, None] * math.pi / 16) * 0.5
_DCT[0] /= math.sqrt(2)
_TO_YCBCR = torch.tensor(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
)


def jpeg(x_BCHW: torch.Tensor, quality: torch.Tensor) -> torch.Tensor:
    """What a baseline JPEG of `quality` (B,) in 1..100 leaves of the images: float32 (B, 3, H, W)
    in [0, 1].

    The lossy parts of ITU-T T.81 as libjpeg does them: YCbCr with 2x2 subsampled chroma, 8x8 DCT,
    quantisation.
    """
    height, width = x_BCHW.shape[2:]
    padded = F.pad(x_BCHW, [0, -width % 16, 0, -height % 16], mode="replicate") * 255
    matrix = _TO_YCBCR.to(x_BCHW.device)
    ycbcr = torch.einsum("kc,bchw->bkhw", matrix, padded)
    factor = torch.where(quality < 50, 5000 // quality, 200 - 2 * quality).float()
    luma = _quantised(ycbcr[:, :1] - 128, _LUMA, factor) + 128
    chroma = F.avg_pool2d(ycbcr[:, 1:], 2)
    chroma = F.interpolate(
        _quantised(chroma, _CHROMA, factor), scale_factor=2, mode="bilinear", align_corners=False
    )
    rgb = torch.einsum("ck,bkhw->bchw", torch.linalg.inv(matrix), torch.cat([luma, chroma], dim=1))
    return (rgb[:, :, :height, :width] / 255).clamp_(0, 1)


def _quantised(plane_BCHW: torch.Tensor, table: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Round the 8x8 DCT coefficients of (B, C, H, W) to multiples of the scaled table."""
    count, channels, height, width = plane_BCHW.shape
    dct = _DCT.to(plane_BCHW.device)
    steps = ((table.to(plane_BCHW.device) * factor.view(-1, 1, 1) + 50) / 100).floor().clamp(1, 255)
    steps = steps.view(count, 1, 1, 8, 1, 8)
    blocks = plane_BCHW.reshape(count, channels, height // 8, 8, width // 8, 8)
    coefficients = torch.einsum("ui,bchiwj,vj->bchuwv", dct, blocks, dct)
    coefficients = torch.round(coefficients / steps) * steps
    return torch.einsum("ui,bchuwv,vj->bchiwj", dct, coefficients, dct).reshape(plane_BCHW.shape)

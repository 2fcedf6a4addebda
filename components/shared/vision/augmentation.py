"""Random augmentations of street images in torch: crop, flip, rotation, colour, blur, noise, JPEG.

Parameters are drawn for a whole global batch and indexed by batch slot (see the training loop);
pixels are processed in batches. `moderate` and `aggressive` cover the corruptions of the deployment
(see `corruptions`), plus horizontal flips, which do not change the label.

Why no library: kornia draws its parameters inside the call, for the batch at hand, so that an
image's augmentation would depend on the micro-batch and on the number of processes; torchvision is
not a dependency of this project.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from components.shared.vision.arithmetic import single_precision
from components.shared.vision.noise import normals

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Strength:
    """Ranges and probabilities of one augmentation strength."""

    min_scale: float  # fraction of the image area inside the crop
    degrees: float  # largest rotation
    colour: float  # factors lie in [1 - colour, 1 + colour]
    p_blur: float
    p_noise: float
    p_jpeg: float
    min_quality: int


STRENGTHS = {
    "moderate": _Strength(0.6, 10.0, 0.25, 0.1, 0.1, 0.25, 60),
    "aggressive": _Strength(0.2, 20.0, 0.5, 0.3, 0.3, 0.5, 30),
}
_MIN_BLUR_SIGMA, _MAX_BLUR_SIGMA = 0.3, 2.0  # pixels
_MIN_NOISE, _MAX_NOISE = 0.01, 0.06  # standard deviation of pixel values in [0, 1]
_MAX_QUALITY = 95  # of JPEG
_BLUR_RADIUS = 4  # pixels: two of the largest sigma


@dataclass(frozen=True)
class Augmentation:
    """Random parameters of B images; the first axis of every array has length B.

    Attributes:
        crop: (B, 3) scale of the side, then horizontal and vertical offset of the centre, in
            [-1, 1].
        flip: (B,) whether the image is mirrored horizontally.
        radians: (B,) angle of rotation.
        colour: (B, 3) factors of brightness, contrast and saturation.
        sigma: (B,) standard deviation of the Gaussian blur in pixels; 0: no blur.
        noise: (B,) standard deviation of the pixel noise; 0: no noise.
        noise_seed: (B,) seed of the pixel noise.
        quality: (B,) JPEG quality; 0: no compression.
    """

    crop: Floats
    flip: npt.NDArray[np.bool_]
    radians: Floats
    colour: Floats
    sigma: Floats
    noise: Floats
    noise_seed: npt.NDArray[np.int64]
    quality: npt.NDArray[np.int64]

    def take(self, rows: npt.NDArray[np.int64]) -> "Augmentation":
        """Return the parameters of the images `rows`."""
        return Augmentation(**{name: values[rows] for name, values in vars(self).items()})


def draw(rng: np.random.Generator, count: int, strength: str) -> Augmentation:
    """Draw the parameters of `count` images at a strength of STRENGTHS."""
    ranges = STRENGTHS[strength]

    def sometimes(probability: float, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.where(rng.random(count) < probability, values, 0.0)

    scale = np.sqrt(rng.uniform(ranges.min_scale, 1.0, count))
    centre = rng.uniform(-1.0, 1.0, (count, 2)) * (1.0 - scale)[:, None]
    flip = rng.random(count) < 0.5

    angle = math.radians(ranges.degrees)
    radians = rng.uniform(-angle, angle, count)
    colour = rng.uniform(1 - ranges.colour, 1 + ranges.colour, (count, 3))

    sigma = sometimes(ranges.p_blur, rng.uniform(_MIN_BLUR_SIGMA, _MAX_BLUR_SIGMA, count))
    noise = sometimes(ranges.p_noise, rng.uniform(_MIN_NOISE, _MAX_NOISE, count))
    noise_seed = rng.integers(0, 2**62, count)
    quality = sometimes(ranges.p_jpeg, rng.uniform(ranges.min_quality, _MAX_QUALITY, count))

    return Augmentation(
        crop=np.column_stack([scale, centre]).astype(np.float32),
        flip=flip,
        radians=radians.astype(np.float32),
        colour=colour.astype(np.float32),
        sigma=sigma.astype(np.float32),
        noise=noise.astype(np.float32),
        noise_seed=noise_seed,
        quality=quality.astype(np.int64),
    )


def apply(images: torch.Tensor, parameters: Augmentation, size: int | None = None) -> torch.Tensor:
    """Return the images, each augmented by its own parameters; always in float32.

    Args:
        images: (B, S, S, 3) uint8.
        parameters: Parameters of B images.
        size: Side s of the result in pixels, at most S; None: S.

    Returns:
        (B, 3, s, s) float32 in [0, 1].
    """
    # Half precision would make the result depend on the surrounding autocast.
    with single_precision(images.device):
        return _augmented(images, parameters, size or images.shape[1])


def _augmented(images: torch.Tensor, parameters: Augmentation, size: int) -> torch.Tensor:
    device = images.device
    # So many samples per pixel of the result that none is farther from the next than a stored pixel
    # is: fewer would skip pixels, and show patterns that the scene has not (aliasing).
    oversampling = math.ceil(images.shape[1] / size)
    x_BCHW = images.permute(0, 3, 1, 2).float().div_(255)
    x_BCHW = _resample(x_BCHW, parameters, size * oversampling)
    if oversampling > 1:
        x_BCHW = F.avg_pool2d(x_BCHW, oversampling)

    if (parameters.colour != 1).any():
        x_BCHW = adjust_colour(x_BCHW, copied_to(device, parameters.colour))

    # Only the images that drew a blur, noise or compression pay for it.
    blurred = np.flatnonzero(parameters.sigma)
    if len(blurred):
        rows = copied_to(device, blurred)
        x_BCHW[rows] = blur(x_BCHW[rows], copied_to(device, parameters.sigma[blurred]))

    noisy = np.flatnonzero(parameters.noise)
    if len(noisy):
        rows, deviation = copied_to(device, noisy), copied_to(device, parameters.noise[noisy])
        x_BCHW[rows] = _add_noise(x_BCHW[rows], deviation, parameters.noise_seed[noisy])

    compressed = np.flatnonzero(parameters.quality)
    if len(compressed):
        rows = copied_to(device, compressed)
        x_BCHW[rows] = jpeg(x_BCHW[rows], copied_to(device, parameters.quality[compressed]))

    return x_BCHW.clamp_(0, 1)


def copied_to(device: torch.device, values: npt.NDArray[Any]) -> torch.Tensor:
    """Copy a small array to the device, without waiting for what the device has to do before."""
    return torch.from_numpy(values).to(device, non_blocking=True)


def _resample(x_BCHW: torch.Tensor, parameters: Augmentation, size: int) -> torch.Tensor:
    """Crop, flip and rotate in one bilinear resampling; pixels outside the image are black."""
    cosine, sine = np.cos(parameters.radians), np.sin(parameters.radians)
    scale, dx, dy = parameters.crop.T
    mirror = np.where(parameters.flip, -1.0, 1.0)

    # (2, 3, B): the affine map from coordinates of the result to coordinates of the image.
    rows = [
        [scale * cosine * mirror, -scale * sine, dx],
        [scale * sine * mirror, scale * cosine, dy],
    ]
    theta = copied_to(x_BCHW.device, np.array(rows, dtype=np.float32).transpose(2, 0, 1))
    grid = F.affine_grid(theta, [*x_BCHW.shape[:2], size, size], align_corners=False)

    return F.grid_sample(x_BCHW, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def adjust_colour(x_BCHW: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Scale brightness, contrast and saturation by `factors` (B, 3), clamping after each."""
    brightness, contrast, saturation = (factors[:, i].view(-1, 1, 1, 1) for i in range(3))
    x_BCHW = (x_BCHW * brightness).clamp_(0, 1)

    mean = _luminance(x_BCHW).mean(dim=(2, 3), keepdim=True)
    x_BCHW = ((x_BCHW - mean) * contrast).add_(mean).clamp_(0, 1)

    grey = _luminance(x_BCHW)
    return ((x_BCHW - grey) * saturation).add_(grey).clamp_(0, 1)


def _luminance(x_BCHW: torch.Tensor) -> torch.Tensor:
    """Return the luma (B, 1, H, W) of ITU-R BT.601."""
    weights = _constants(x_BCHW.device).to_ycbcr[0].view(1, 3, 1, 1)
    return (x_BCHW * weights).sum(dim=1, keepdim=True)


def blur(x_BCHW: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Blur each image by its own `sigma` (B,): two grouped one-dimensional convolutions."""
    count, channels, height, width = x_BCHW.shape
    offsets = torch.arange(-_BLUR_RADIUS, _BLUR_RADIUS + 1, device=x_BCHW.device)
    kernel = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(channels, 0)

    # One batch entry with B * C channels, so that each image has a kernel of its own.
    flat = F.pad(
        x_BCHW.reshape(1, count * channels, height, width), [_BLUR_RADIUS] * 4, mode="reflect"
    )
    flat = F.conv2d(flat, kernel[:, None, :, None], groups=count * channels)
    flat = F.conv2d(flat, kernel[:, None, None, :], groups=count * channels)

    return flat.view(count, channels, height, width)


def _add_noise(
    x_BCHW: torch.Tensor, deviation: torch.Tensor, seeds: npt.NDArray[np.int64]
) -> torch.Tensor:
    """Add Gaussian pixel noise of standard deviation `deviation` (B,), by one seed per image."""
    counters = np.zeros((len(seeds), 3), dtype=np.uint32)
    noise = normals(seeds, counters, math.prod(x_BCHW.shape[1:]), x_BCHW.device)
    return x_BCHW + noise.view(x_BCHW.shape) * deviation.view(-1, 1, 1, 1)


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


class _Constants(NamedTuple):
    """Constants on one device."""

    luma: torch.Tensor
    chroma: torch.Tensor
    dct: torch.Tensor
    to_ycbcr: torch.Tensor
    to_rgb: torch.Tensor


@functools.cache
def _constants(device: torch.device) -> _Constants:
    """Copy the constants to a device, once."""
    values = (_LUMA, _CHROMA, _DCT, _TO_YCBCR, torch.linalg.inv(_TO_YCBCR))
    return _Constants(*(value.to(device) for value in values))


def jpeg(x_BCHW: torch.Tensor, quality: torch.Tensor) -> torch.Tensor:
    """Return the images after baseline JPEG compression at `quality`.

    The lossy parts of ITU-T T.81 as libjpeg implements them: YCbCr with 2x2 subsampled chroma, 8x8
    DCT, quantisation.

    Args:
        x_BCHW: (B, 3, H, W) float32 in [0, 1].
        quality: (B,) in 1..100.

    Returns:
        (B, 3, H, W) float32 in [0, 1].
    """
    height, width = x_BCHW.shape[2:]
    padded = F.pad(x_BCHW, [0, -width % 16, 0, -height % 16], mode="replicate") * 255
    constants = _constants(x_BCHW.device)
    ycbcr = torch.einsum("kc,bchw->bkhw", constants.to_ycbcr, padded)

    # libjpeg's scale of the example tables, in percent.
    scale = torch.where(quality < 50, 5000 // quality, 200 - 2 * quality).float()
    luma = _quantise(ycbcr[:, :1] - 128, constants.luma, scale) + 128
    chroma = _quantise(F.avg_pool2d(ycbcr[:, 1:], 2), constants.chroma, scale)
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)

    rgb = torch.einsum("ck,bkhw->bchw", constants.to_rgb, torch.cat([luma, chroma], dim=1))

    return (rgb[:, :, :height, :width] / 255).clamp_(0, 1)


def _quantise(plane_BCHW: torch.Tensor, table: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Round the 8x8 DCT coefficients of (B, C, H, W) to multiples of the table, scaled per image.

    Args:
        plane_BCHW: (B, C, H, W) float32; H and W are multiples of 8.
        table: (8, 8) quantisation steps.
        scale: (B,) scale of the table in percent.
    """
    count, channels, height, width = plane_BCHW.shape
    dct = _constants(plane_BCHW.device).dct
    steps = ((table * scale.view(-1, 1, 1) + 50) / 100).floor().clamp(1, 255)
    steps = steps.view(count, 1, 1, 8, 1, 8)

    blocks = plane_BCHW.reshape(count, channels, height // 8, 8, width // 8, 8)
    coefficients = torch.einsum("ui,bchiwj,vj->bchuwv", dct, blocks, dct)
    coefficients = torch.round(coefficients / steps) * steps

    return torch.einsum("ui,bchuwv,vj->bchiwj", dct, coefficients, dct).reshape(plane_BCHW.shape)

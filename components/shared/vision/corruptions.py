"""The image corruptions of the deployment, at severities 0 to 3, for measuring robustness.

Severity 0 crops the central square. Severity 1 rotates by up to 20 degrees and crops a random
square; severity 2 may also reduce saturation, contrast and resolution; severity 3 reduces them
further and may add noise and blur. The results have 224 x 224 pixels and JPEG quality 75; nothing
is mirrored. (NATIX StreetVision subnet, natix/validator, January 2026.) No library reproduces the
validator's arithmetic, such as its truncation to 8 bits after every operation.

Stored images have lost their aspect ratio: they are treated as 4:3 photographs.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from components.shared.vision import augmentation as augment
from components.shared.vision.arithmetic import single_precision
from components.shared.vision.noise import normals

SEVERITIES = (0, 1, 2, 3)
_SIZE = 224  # pixels, side of the validator's images
_QUALITY = 75  # of JPEG
_DEGREES = 20.0  # largest rotation
_N_TRIES = 10  # attempts at a random crop
_ASPECT = 4 / 3

# Strengths 1 and 2 of each operation; at strength 0 it is left out.
_SATURATION = (0.4, 0.3)
_CONTRAST = (0.85, 0.725)
_REDUCTION = (2, 3)  # factor of the resolution
_VARIANCE = (0.001, 0.002)  # of the noise, for values in [0, 1]
_KERNEL = (7, 9)  # pixels, side of the blur's kernel

_LUMINANCE = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
# RGB in [0, 1] to studio-range YCbCr in 0..255 (ITU-R BT.601), where noise is added.
_TO_YCBCR = torch.tensor(
    [[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]],
    dtype=torch.float64,
)
_TO_RGB = torch.linalg.inv(_TO_YCBCR)


@dataclass(frozen=True)
class Corruption:
    """Random parameters of N images at one severity; the first axis of every array has length N.

    Attributes:
        severity: One of SEVERITIES.
        radians: (N,) angle of rotation.
        area: (N, 10) fraction of the image area that each attempt at a crop covers.
        offset: (N, 10, 2) horizontal and vertical offset of that crop, as a fraction in [0, 1] of
            the room that it has.
        strength: (N, 5) strength 0 to 2 of saturation, contrast, resolution, noise and blur.
        noise_seed: (N,) seed of the noise.
    """

    severity: int
    radians: npt.NDArray[np.float64]
    area: npt.NDArray[np.float64]
    offset: npt.NDArray[np.float64]
    strength: npt.NDArray[np.int64]
    noise_seed: npt.NDArray[np.int64]

    def take(self, rows: npt.NDArray[np.int64]) -> "Corruption":
        """Return the parameters of the images `rows`."""
        arrays = {name: values for name, values in vars(self).items() if name != "severity"}
        return Corruption(self.severity, **{name: values[rows] for name, values in arrays.items()})


def draw(rng: np.random.Generator, count: int, severity: int) -> Corruption:
    """Draw the parameters of `count` images at a severity of SEVERITIES."""
    angle = math.radians(_DEGREES)
    # Saturation, contrast and resolution begin at severity 2, noise and blur at severity 3.
    strongest = np.array([max(severity - 1, 0)] * 3 + [2 * (severity == 3)] * 2)
    return Corruption(
        severity=severity,
        radians=rng.uniform(-angle, angle, count),
        area=rng.uniform(0.2, 1.0, (count, _N_TRIES)),
        offset=rng.random((count, _N_TRIES, 2)),
        strength=rng.integers(0, strongest + 1, (count, 5)),
        noise_seed=rng.integers(0, 2**62, count),
    )


def corrupt(images: torch.Tensor, parameters: Corruption, size: int) -> torch.Tensor:
    """Return the images, each corrupted by its own parameters.

    Args:
        images: (B, S, S, 3) uint8, 4:3 photographs resized to squares.
        parameters: Parameters of B images.
        size: Side of the result in pixels.

    Returns:
        (B, 3, size, size) float32 in [0, 1].
    """
    # Less precision would make the result depend on what surrounds the call.
    with single_precision(images.device):
        return _corrupted(images, parameters, size)


def _corrupted(images: torch.Tensor, parameters: Corruption, size: int) -> torch.Tensor:
    square = images.permute(0, 3, 1, 2).float().div_(255)
    wide = (square.shape[2], round(square.shape[3] * _ASPECT))
    frames = F.interpolate(square, wide, mode="bilinear")
    if parameters.severity > 0:
        frames = _rotate(frames, parameters.radians)

    cropped = torch.cat([_crop(frames[i : i + 1], parameters, i) for i in range(len(frames))])
    for row, strengths in enumerate(parameters.strength):
        cropped[row] = _degrade(cropped[row], strengths.tolist(), int(parameters.noise_seed[row]))

    quality = torch.full((len(cropped),), _QUALITY, device=images.device)
    compressed = augment.jpeg(cropped, quality)
    if size == _SIZE:
        return compressed

    resized = F.interpolate(
        compressed, (size, size), mode="bicubic", antialias=True, align_corners=False
    )

    return resized.clamp_(0, 1)


def desaturate(x_CHW: torch.Tensor, strength: int) -> torch.Tensor:
    """Move the colours of (3, H, W) in [0, 1] towards grey, truncated to steps of 1 / 255."""
    x64_CHW = x_CHW.double()
    grey_HW = torch.einsum("chw,c->hw", x64_CHW, _on_device(_LUMINANCE, x64_CHW.device))
    return _truncate(255 * (grey_HW + (x64_CHW - grey_HW) * _SATURATION[strength - 1]))


def reduce_contrast(x_CHW: torch.Tensor, strength: int) -> torch.Tensor:
    """Darken (3, H, W) in [0, 1] by a factor, truncated to steps of 1 / 255."""
    return _truncate(x_CHW.double() * 255 * _CONTRAST[strength - 1])


def _degrade(x_CHW: torch.Tensor, strengths: list[int], noise_seed: int) -> torch.Tensor:
    """Apply the five operations of `Corruption.strength` to one image, in the validator's order."""
    saturation, contrast, resolution, noise, blur = strengths
    if saturation:
        x_CHW = desaturate(x_CHW, saturation)
    if contrast:
        x_CHW = reduce_contrast(x_CHW, contrast)

    if resolution:
        small = _SIZE // _REDUCTION[resolution - 1]
        reduced = F.interpolate(x_CHW[None], (small, small), mode="bilinear", align_corners=False)
        x_CHW = F.interpolate(reduced, (_SIZE, _SIZE), mode="bilinear", align_corners=False)[0]

    if noise:
        x_CHW = _add_noise(x_CHW, math.sqrt(_VARIANCE[noise - 1]), noise_seed)

    return _blur(x_CHW, _KERNEL[blur - 1]) if blur else x_CHW


def _rotate(x_BCHW: torch.Tensor, radians: npt.NDArray[np.float64]) -> torch.Tensor:
    """Rotate about the centre: nearest neighbour, black outside, aspect ratio preserved."""
    height, width = x_BCHW.shape[2:]
    cosine, sine = np.cos(radians), np.sin(radians)
    zero = np.zeros_like(cosine)
    rows = [[cosine, -sine * height / width, zero], [sine * width / height, cosine, zero]]
    theta = torch.from_numpy(np.array(rows, dtype=np.float32).transpose(2, 0, 1))
    theta = theta.to(x_BCHW.device, non_blocking=True)
    grid = F.affine_grid(theta, list(x_BCHW.shape), align_corners=False)
    return F.grid_sample(x_BCHW, grid, mode="nearest", padding_mode="zeros", align_corners=False)


def _crop(frame_1CHW: torch.Tensor, parameters: Corruption, row: int) -> torch.Tensor:
    """Return the first random square that fits, else the central one, as (1, 3, 224, 224)."""
    height, width = frame_1CHW.shape[2:]
    side, left, top = height, (width - height) // 2, 0

    if parameters.severity > 0:
        tries = zip(parameters.area[row], parameters.offset[row], strict=True)
        for area, (x, y) in tries:
            wanted = round(math.sqrt(area * height * width))
            # Where the square does not fit, the validator draws again.
            if 0 < wanted <= height:
                side, left, top = wanted, round(x * (width - wanted)), round(y * (height - wanted))
                break

    crop = frame_1CHW[..., top : top + side, left : left + side]
    resized = F.interpolate(
        crop, (_SIZE, _SIZE), mode="bilinear", antialias=True, align_corners=False
    )

    return resized.clamp_(0, 1)


def _add_noise(x_CHW: torch.Tensor, deviation: float, seed: int) -> torch.Tensor:
    """Add Gaussian noise in YCbCr."""
    counters = np.zeros((1, 3), dtype=np.uint32)
    drawn = normals(seed, counters, x_CHW.numel(), x_CHW.device)
    noise = 255 * deviation * drawn.double().view(x_CHW.shape)
    added = torch.einsum("kc,chw->khw", _on_device(_TO_RGB, x_CHW.device), noise)
    return _truncate(255 * (x_CHW.double() + added))


def _blur(x_CHW: torch.Tensor, kernel: int) -> torch.Tensor:
    """Blur by a Gaussian whose standard deviation is a sixth of the kernel's side."""
    offsets = torch.arange(kernel, device=x_CHW.device) - kernel // 2
    weights = torch.exp(-0.5 * (offsets / (kernel / 6)) ** 2)
    weights = (weights / weights.sum()).expand(3, 1, -1)
    padded = F.pad(x_CHW[None], [kernel // 2] * 4, mode="reflect")
    across = F.conv2d(padded, weights[..., None], groups=3)
    return F.conv2d(across, weights[:, :, None], groups=3)[0]


@functools.cache
def _on_device(constant: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy one of the module's constants to a device, once."""
    return constant.to(device)


def _truncate(values: torch.Tensor) -> torch.Tensor:
    """Truncate (3, H, W) on a scale of 255 to integers, as an 8-bit image does; returns [0, 1]."""
    return values.clamp(0, 255).floor().div(255).float()

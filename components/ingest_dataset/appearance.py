"""Brightness and sharpness of an image, by which evaluation slices its metrics.

Both are of the stored square, which the model sees, and are exact: sums of integers, rounded once,
so that parts, processes and machines agree in every digit.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

_DECIMALS = 2  # a hundredth of a grey level: far below what an eye or a quartile tells apart


@dataclass(frozen=True)
class Appearance:
    """What is measured of the pixels.

    brightness: mean luma (ITU-R BT.601), in [0, 255]. sharpness: variance of the luma's Laplacian,
    0 for a blank image.
    """

    brightness: float
    sharpness: float


def appearance(pixels: npt.NDArray[np.uint8]) -> Appearance:
    """Measure an image (H, W, 3) uint8 of at least 3 x 3 pixels.

    The variance of the Laplacian is a focus measure of Pech-Pacheco et al. ("Diatom autofocusing in
    brightfield microscopy", ICPR 2000), LAPV in the comparison of Pertuz et al. (Pattern
    Recognition 2013). It is low without focus, in fog and at night, and depends on the size of the
    stored images: it compares images of one data set. The border has no Laplacian and is left out.
    """
    luma = np.asarray(Image.fromarray(pixels).convert("L")).astype(np.int16)
    neighbours = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:]
    laplacian = neighbours - 4 * luma[1:-1, 1:-1]

    count = laplacian.size
    total = int(laplacian.sum(dtype=np.int64))
    squares = int(np.square(laplacian, dtype=np.int32).sum(dtype=np.int64))
    return Appearance(
        brightness=round(int(luma.sum(dtype=np.int64)) / luma.size, _DECIMALS),
        sharpness=round((count * squares - total**2) / count**2, _DECIMALS),
    )

"""Brightness and sharpness are those of Pillow and scipy, and follow the light and the focus."""

import numpy as np
import pytest
import scipy.ndimage
from PIL import Image, ImageEnhance, ImageFilter

from components.ingest_dataset.appearance import Appearance, appearance

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)


def test_values_are_those_of_pillow_and_scipy() -> None:
    luma = np.asarray(Image.fromarray(PIXELS).convert("L")).astype(np.float64)
    laplacian = scipy.ndimage.laplace(luma)[1:-1, 1:-1]
    found = appearance(PIXELS)
    assert found.brightness == pytest.approx(luma.mean(), abs=0.005)
    assert found.sharpness == pytest.approx(laplacian.var(), abs=0.005)


def test_the_largest_edges_do_not_overflow() -> None:
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255
    found = appearance(np.repeat(board[..., None], 3, axis=2).astype(np.uint8))
    assert found == Appearance(brightness=127.5, sharpness=1020.0**2)


def test_a_blank_image_has_no_sharpness() -> None:
    assert appearance(np.full((16, 16, 3), 7, dtype=np.uint8)) == Appearance(7.0, 0.0)


def test_darker_images_are_darker_and_blurred_ones_less_sharp() -> None:
    image = Image.fromarray(PIXELS)
    darker = appearance(np.asarray(ImageEnhance.Brightness(image).enhance(0.5)))
    blurred = appearance(np.asarray(image.filter(ImageFilter.GaussianBlur(1))))
    plain = appearance(PIXELS)
    assert darker.brightness == pytest.approx(plain.brightness / 2, abs=1)
    assert blurred.brightness == pytest.approx(plain.brightness, abs=1)
    assert blurred.sharpness < plain.sharpness / 10

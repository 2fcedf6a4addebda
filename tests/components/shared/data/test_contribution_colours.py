"""Colours of contributions."""

import io

import numpy as np
from PIL import Image

from components.shared.data.contribution_colours import (
    AGAINST,
    FOR,
    colours,
    encode_overlay,
    largest,
)


def test_the_sign_is_the_hue_and_the_size_the_alpha() -> None:
    values = np.array([[2.0, 1.0], [-2.0, 0.0]])
    found = colours(values, largest(values), 1.0)
    assert found[0, 0].tolist() == [*FOR, 217]  # 85 % of 255
    assert found[0, 1].tolist() == [*FOR, 108]
    assert found[1, 0].tolist() == [*AGAINST, 217]
    assert found[1, 1, 3] == 0


def test_a_weak_picture_fades() -> None:
    assert colours(np.array([1.0]), 1.0, 0.1)[0].tolist() == [*FOR, 22]


def test_nothing_at_all_is_clear() -> None:
    assert colours(np.zeros((2, 3)), largest(np.zeros((2, 3))), 1.0)[..., 3].max() == 0


def test_an_overlay_is_a_pixel_for_each_patch() -> None:
    values = np.linspace(-1, 1, 12).reshape(3, 4)
    with Image.open(io.BytesIO(encode_overlay(values, 0.5))) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGBA", (4, 3))
        np.testing.assert_array_equal(np.asarray(picture), colours(values, 1.0, 0.5))

"""Corruptions: reference colours, operations of each severity, equal results for equal seeds."""

import numpy as np
import pytest
import torch
from PIL import Image

from components.shared.vision import augmentation as augment
from components.shared.vision.corruptions import (
    SEVERITIES,
    corrupt,
    desaturate,
    draw,
    reduce_contrast,
)

ORANGE, YELLOW, GREY = (255, 120, 0), (250, 220, 20), (128, 128, 128)


def _colour(rgb: tuple[int, int, int]) -> torch.Tensor:
    return torch.tensor(rgb).view(3, 1, 1) / 255


def _bytes(x_CHW: torch.Tensor) -> list[int]:
    return [round(value) for value in (x_CHW * 255).flatten().tolist()]


def _photos(count: int, size: int = 96) -> torch.Tensor:
    coarse = np.random.default_rng(0).integers(40, 256, (count, 6, 6, 3), dtype=np.uint8)
    return torch.from_numpy(
        np.stack([np.asarray(Image.fromarray(c).resize((size, size))) for c in coarse])
    )


@pytest.mark.parametrize(
    ("rgb", "strength", "expected"),
    [(ORANGE, 1, [190, 136, 88]), (ORANGE, 2, [179, 138, 102]), (YELLOW, 1, [223, 211, 131])],
)
def test_faded_colours_are_the_validators(
    rgb: tuple[int, int, int], strength: int, expected: list[int]
) -> None:
    assert _bytes(desaturate(_colour(rgb), strength)) == expected


def test_grey_stays_grey_to_the_step_that_rounding_may_take() -> None:
    assert np.abs(np.array(_bytes(desaturate(_colour(GREY), 1))) - [127, 128, 127]).max() <= 1


@pytest.mark.parametrize(("strength", "expected"), [(1, [216, 102, 0]), (2, [184, 87, 0])])
def test_lost_contrast_is_the_validators(strength: int, expected: list[int]) -> None:
    assert _bytes(reduce_contrast(_colour(ORANGE), strength)) == expected


@pytest.mark.parametrize("severity", SEVERITIES)
def test_a_severity_is_finite_reproducible_and_independent_of_the_batch(severity: int) -> None:
    images = _photos(12)
    parameters = draw(np.random.default_rng(1), 12, severity)
    corrupted = corrupt(images, parameters, 56)
    assert corrupted.shape == (12, 3, 56, 56)
    assert 0 <= float(corrupted.min()) <= float(corrupted.max()) <= 1
    rows = np.array([7, 3])
    torch.testing.assert_close(
        corrupt(images[rows], parameters.take(rows), 56), corrupted[rows], atol=1e-5, rtol=0
    )
    assert torch.equal(corrupt(images, draw(np.random.default_rng(1), 12, severity), 56), corrupted)


def test_severities_allow_what_the_validator_does_at_them() -> None:
    highest = [
        draw(np.random.default_rng(0), 500, severity).strength.max(axis=0).tolist()
        for severity in SEVERITIES
    ]
    assert highest == [[0] * 5, [0] * 5, [1, 1, 1, 0, 0], [2, 2, 2, 2, 2]]


def test_severity_0_is_the_central_square_as_a_jpeg_and_nothing_is_ever_mirrored() -> None:
    """The middle three quarters of a stored square remain: it is a squeezed 4:3 photograph."""
    image = _photos(1, 224)
    corrupted = corrupt(image, draw(np.random.default_rng(0), 1, 0), 224)
    square = Image.fromarray(image[0].numpy()).resize(
        (224, 224), Image.Resampling.BILINEAR, box=(28, 0, 196, 224)
    )
    expected = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None] / 255
    sent = augment.jpeg(expected, torch.tensor([75]))
    assert float((corrupted - sent).abs().mean()) < 0.005
    ramp = torch.arange(0, 224, dtype=torch.uint8).view(1, 1, 224, 1).expand(64, 224, -1, 3)
    for severity in SEVERITIES:
        seen = corrupt(ramp, draw(np.random.default_rng(2), 64, severity), 56)
        left, right = (
            seen[:, :, 20:36, 8:20].mean(dim=(1, 2, 3)),
            seen[:, :, 20:36, 36:48].mean(dim=(1, 2, 3)),
        )
        assert bool((left < right).all())


@pytest.mark.parametrize("severity", SEVERITIES)
def test_half_precision_around_it_changes_nothing(severity: int) -> None:
    images, parameters = _photos(4), draw(np.random.default_rng(1), 4, severity)
    with torch.autocast("cpu", torch.bfloat16):
        half = corrupt(images, parameters, 224)
    assert torch.equal(half, corrupt(images, parameters, 224))

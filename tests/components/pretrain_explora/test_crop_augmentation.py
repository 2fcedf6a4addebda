"""Augmentation of self-supervised crops, against the published ranges."""

import numpy as np
import pytest
import torch

from components.pretrain_explora import crop_augmentation
from components.pretrain_explora.crop_augmentation import CropParameters

N = 20_000


def _identity(count: int, **changes: object) -> CropParameters:
    zeros = np.zeros(count, dtype=np.float32)
    fields: dict[str, object] = {
        "sides": np.ones((count, 2), dtype=np.float32),
        "centre": np.zeros((count, 2), dtype=np.float32),
        "flip": zeros > 0,
        "colour": np.ones((count, 3), dtype=np.float32),
        "sigma": zeros,
    }
    return CropParameters(**(fields | changes))  # type: ignore[arg-type]


def _images(count: int, side: int = 12) -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("kind", "area", "blur", "jitter"),
    [
        ("first_large", (0.32, 1.0), 1.0, 0.8),
        ("second_large", (0.32, 1.0), 0.1, 0.8),
        ("small", (0.05, 0.32), 0.5, 0.8),
        ("plain", (0.2, 1.0), 0.0, 0.0),
    ],
)
def test_parameters_have_the_published_ranges_and_probabilities(
    kind: str, area: tuple[float, float], blur: float, jitter: float
) -> None:
    drawn = crop_augmentation.draw(np.random.default_rng(0), N, kind)
    found = drawn.sides.prod(axis=1)
    assert area[0] - 1e-5 <= found.min() < area[0] + 0.01
    assert found.max() <= area[1] + 1e-5
    aspects = drawn.sides[:, 0] / drawn.sides[:, 1]
    assert 3 / 4 - 1e-5 <= aspects.min() < 0.77
    assert 1.3 < aspects.max() <= 4 / 3 + 1e-5
    assert (np.abs(drawn.centre) + drawn.sides <= 1 + 1e-6).all()  # inside the image

    for mask, expected in (
        (drawn.sigma > 0, blur),
        ((drawn.colour != 1).any(axis=1), jitter),
        (drawn.flip, 0.5),
    ):
        assert mask.mean() == pytest.approx(expected, abs=0.015)
    assert (np.abs(drawn.colour - 1).max(axis=0) <= np.array([0.4, 0.4, 0.2]) + 1e-6).all()
    assert drawn.sigma.max() <= 2.0


def test_nothing_drawn_changes_nothing_and_a_crop_is_a_part_of_the_image() -> None:
    images = _images(2)
    expected = images.permute(0, 3, 1, 2).float() / 255
    torch.testing.assert_close(
        crop_augmentation.apply(images, _identity(2), 12), expected, rtol=0, atol=1e-5
    )

    half = np.full((2, 2), 0.5, dtype=np.float32)
    half[:, 0] = 0.25  # three columns of twelve, six rows
    upper_left = np.tile(np.float32([-0.75, -0.5]), (2, 1))
    parameters = _identity(2, sides=half, centre=upper_left)
    crop = crop_augmentation.apply(images, parameters, 6)
    torch.testing.assert_close(crop[..., ::2].shape, torch.Size([2, 3, 6, 3]))
    smooth = crop_augmentation.apply(images, parameters, 6, oversampling=4).mean(dim=(2, 3))
    torch.testing.assert_close(smooth, expected[:, :, :6, :3].mean(dim=(2, 3)), atol=0.05, rtol=0)


def test_mirrored_and_recoloured_crops() -> None:
    images = _images(2)
    x_BCHW = images.permute(0, 3, 1, 2).float() / 255
    grey = np.array([[1, 1, 1], [1, 1, 0]], dtype=np.float32)
    parameters = _identity(2, colour=grey, flip=np.array([True, False]))
    found = crop_augmentation.apply(images, parameters, 12)
    torch.testing.assert_close(found[0], x_BCHW[0].flip(2), rtol=0, atol=1e-5)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    torch.testing.assert_close(found[1], (x_BCHW[1] * weights).sum(0).expand(3, -1, -1))


@pytest.mark.parametrize("kind", list(crop_augmentation.KINDS))
def test_a_crop_is_the_same_whatever_batch_it_is_in_and_under_autocast(kind: str) -> None:
    images = _images(8, 24)
    parameters = crop_augmentation.draw(np.random.default_rng(1), 8, kind)
    whole = crop_augmentation.apply(images, parameters, 16)
    rows = np.array([5, 2])
    with torch.autocast("cpu", torch.bfloat16):
        part = crop_augmentation.apply(images[rows], parameters.take(rows), 16)
    torch.testing.assert_close(part, whole[rows], rtol=0, atol=1e-6)
    assert whole.min() >= 0
    assert whole.max() <= 1


def test_what_is_much_smaller_than_its_source_keeps_no_false_structure() -> None:
    board = torch.from_numpy(np.indices((90, 90)).sum(axis=0) % 2 * 255).to(torch.uint8)
    images = board[None, :, :, None].expand(8, 90, 90, 3)
    parameters = crop_augmentation.draw(np.random.default_rng(0), 8, "plain")
    plain, smooth = (
        crop_augmentation.apply(images, parameters, 30, oversampling=n) for n in (1, 3)
    )
    assert plain.shape == smooth.shape == (8, 3, 30, 30)
    assert smooth.std() < 0.3 * plain.std()

"""Augmentation: range, determinism, independence of the batch, and JPEG against Pillow's."""

import dataclasses
import io

import numpy as np
import pytest
import torch
from PIL import Image

from components.shared.vision import augmentation as augment


def _scene(count: int = 4, size: int = 64, seed: int = 0) -> torch.Tensor:
    """Smooth random images with edges, uint8 (B, S, S, 3)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    images = [
        np.asarray(Image.fromarray(c).resize((size, size), Image.Resampling.BICUBIC))
        for c in coarse
    ]
    stacked = np.stack(images)
    stacked[:, 20:30, 10:40] = (255, 120, 0)
    return torch.from_numpy(stacked)


@pytest.mark.parametrize("strength", ["moderate", "aggressive"])
def test_output_is_finite_and_in_range(strength: str) -> None:
    images = _scene(32)
    result = augment.apply(images, augment.draw(np.random.default_rng(1), 32, strength))
    assert result.shape == (32, 3, 64, 64)
    assert result.dtype == torch.float32
    assert torch.isfinite(result).all()
    assert 0 <= float(result.min()) <= float(result.max()) <= 1


def test_half_precision_around_it_changes_nothing() -> None:
    images, parameters = _scene(32), augment.draw(np.random.default_rng(1), 32, "aggressive")
    with torch.autocast("cpu", torch.bfloat16):
        half = augment.apply(images, parameters)
    assert torch.equal(half, augment.apply(images, parameters))


def test_an_image_is_distorted_alike_whatever_batch_it_is_in() -> None:
    images = _scene(16)
    parameters = augment.draw(np.random.default_rng(3), 16, "aggressive")
    whole = augment.apply(images, parameters)
    batch_slots = np.array([13, 2, 7])
    assert torch.allclose(
        augment.apply(images[batch_slots], parameters.take(batch_slots)),
        whole[batch_slots],
        atol=1e-6,
    )


def test_same_seed_gives_the_same_images_and_another_seed_others() -> None:
    images = _scene(8)
    first, second, other = (
        augment.apply(images, augment.draw(np.random.default_rng(s), 8, "moderate"))
        for s in (5, 5, 6)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("quality", [30, 50, 75, 95])
def test_jpeg_distorts_like_pillows(quality: int) -> None:
    images = _scene(1, size=96)
    buffer = io.BytesIO()
    Image.fromarray(images[0].numpy()).save(buffer, format="JPEG", quality=quality, subsampling=2)
    expected = np.asarray(Image.open(buffer)).astype(np.float32)
    pixels = images.permute(0, 3, 1, 2).float() / 255
    actual = augment.jpeg(pixels, torch.tensor([quality]))[0].permute(1, 2, 0).numpy() * 255
    original = images[0].numpy().astype(np.float32)
    # Compared is what compression changed: Pillow also rounds every RGB value, which at quality 95
    # is half of it.
    agreement = np.corrcoef((actual - original).ravel(), (expected - original).ravel())[0, 1]
    assert agreement > 0.95
    assert np.abs(actual - expected).mean() < 0.5 * np.abs(original - expected).mean()


def test_jpeg_keeps_sizes_that_are_no_multiple_of_16() -> None:
    assert augment.jpeg(torch.rand(2, 3, 37, 50), torch.tensor([60, 90])).shape == (2, 3, 37, 50)


def test_a_flip_alone_mirrors_the_image() -> None:
    parameters = augment.draw(np.random.default_rng(0), 1, "moderate")
    identity = augment.Augmentation(
        crop=np.array([[1, 0, 0]], dtype=np.float32),
        flip=np.array([True]),
        radians=np.zeros(1, dtype=np.float32),
        colour=np.ones((1, 3), dtype=np.float32),
        sigma=np.zeros(1, dtype=np.float32),
        noise=np.zeros(1, dtype=np.float32),
        noise_seed=parameters.noise_seed,
        quality=np.zeros(1, dtype=np.int64),
    )
    images = _scene(1)
    result = augment.apply(images, identity)
    assert torch.allclose(result, images.permute(0, 3, 1, 2).float().flip(3) / 255, atol=1e-4)


def _undistorted(count: int) -> augment.Augmentation:
    """Parameters that change nothing."""
    drawn = augment.draw(np.random.default_rng(0), count, "moderate")
    zero = np.zeros(count, dtype=np.float32)
    return dataclasses.replace(
        drawn,
        crop=np.tile(np.array([1, 0, 0], dtype=np.float32), (count, 1)),
        flip=np.zeros(count, dtype=bool),
        radians=zero,
        colour=np.ones((count, 3), dtype=np.float32),
        sigma=zero,
        noise=zero,
        quality=np.zeros(count, dtype=np.int64),
    )


def test_a_smaller_result_is_the_mean_of_the_pixels_that_it_covers() -> None:
    images = _scene(4, size=128)
    result = augment.apply(images, _undistorted(4), 32)
    expected = torch.nn.functional.avg_pool2d(images.permute(0, 3, 1, 2) / 255, 4)
    assert result.shape == (4, 3, 32, 32)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)
    # Sizes without a common factor: near what Pillow's antialiased filter gives.
    found = augment.apply(images, _undistorted(4), 48)
    resized = [
        Image.fromarray(image).resize((48, 48), Image.Resampling.BOX) for image in images.numpy()
    ]
    difference = found.permute(0, 2, 3, 1).numpy() * 255 - np.stack(
        [np.asarray(r) for r in resized]
    )
    assert np.abs(difference).mean() < 3


def test_a_crop_of_a_larger_image_has_the_detail_of_the_stored_pixels() -> None:
    # Stripes of one pixel of 128: no image of 64 pixels can have them.
    stripes = torch.zeros((1, 128, 128, 3), dtype=torch.uint8)
    stripes[:, :, ::2] = 255
    half = dataclasses.replace(_undistorted(1), crop=np.array([[0.5, 0, 0]], dtype=np.float32))
    small = torch.nn.functional.avg_pool2d(stripes.permute(0, 3, 1, 2).float(), 2)
    small = small.permute(0, 2, 3, 1).to(torch.uint8)

    from_stored, from_small = augment.apply(stripes, half, 64), augment.apply(small, half)
    assert float(from_stored.std()) > 0.2
    assert float(from_small.std()) < 0.01


@pytest.mark.parametrize("strength", ["moderate", "aggressive"])
def test_the_stored_size_gives_the_bits_of_no_size(strength: str) -> None:
    images, parameters = _scene(16), augment.draw(np.random.default_rng(1), 16, strength)
    assert torch.equal(augment.apply(images, parameters, 64), augment.apply(images, parameters))

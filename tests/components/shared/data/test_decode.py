"""Every kind of broken file is refused with its reason, every kind of odd image is converted."""

import io

import numpy as np
import pytest
from PIL import Image

from components.shared.data.decode import ImageRejectedError, decode, decode_resized


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


RNG = np.random.default_rng(0)
SCENE = Image.fromarray(RNG.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(
    (160, 120), Image.Resampling.BICUBIC
)
JPEG, PNG = _encoded(SCENE, "JPEG"), _encoded(SCENE, "PNG")


@pytest.mark.parametrize(
    ("data", "name", "reason"),
    [
        (b"", "a.jpg", "empty file"),
        (b"not an image at all", "a.jpg", "not an image"),
        (b"<html></html>", "a.png", "not an image"),
        (JPEG[: len(JPEG) // 2], "a.jpg", "truncated"),
        (JPEG[:20], "a.jpg", "not an image|truncated"),
        (PNG[: len(PNG) // 2], "a.png", "truncated"),
        (PNG[:100] + b"\0" * 50 + PNG[150:], "a.png", "truncated or corrupt"),
        (PNG, "a.jpg", "content is PNG, but the name ends with .jpg"),
        (JPEG, "a.png", "content is JPEG, but the name ends with .png"),
        (JPEG, "big.jpg", "160 x 120 is more than max_pixels=1000"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 100, "a.jpg", "not an image|truncated"),
    ],
)
def test_broken_files_are_refused_with_a_reason(data: bytes, name: str, reason: str) -> None:
    with pytest.raises(ImageRejectedError, match=reason):
        decode(data, name=name, max_pixels=1000 if name == "big.jpg" else 10**6)


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    pixels = np.asarray(decode(_encoded(Image.fromarray(values), "PNG"), name="a.png"))
    assert pixels[..., 0].tolist() == np.round(values / 257).astype(int).tolist()


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1"])
def test_other_modes_become_rgb(mode: str) -> None:
    kind, name = ("TIFF", "a.tif") if mode == "CMYK" else ("PNG", "a.png")
    image = decode(_encoded(SCENE.convert(mode), kind), name=name)
    assert (image.mode, image.size) == ("RGB", SCENE.size)
    assert np.asarray(image).std() > 5


def test_exif_rotation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(_encoded(SCENE, "JPEG", exif=exif), name="a.jpg").size == (120, 160)


def test_resizing_is_pillows_bicubic_squeeze() -> None:
    expected = np.asarray(SCENE.resize((64, 64), Image.Resampling.BICUBIC))
    assert np.array_equal(decode_resized(PNG, name="a.png", size=64), expected)


def test_a_reduced_decode_of_a_large_photo_looks_like_a_full_one() -> None:
    large = SCENE.resize((1600, 1200), Image.Resampling.BICUBIC)
    data = _encoded(large, "JPEG", quality=90)
    full = np.asarray(decode(data, name="a.jpg").resize((64, 64), Image.Resampling.BICUBIC)).astype(
        int
    )
    reduced = decode_resized(data, name="a.jpg", size=64).astype(int)
    assert np.abs(full - reduced).mean() < 0.5

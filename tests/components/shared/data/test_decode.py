"""Every kind of broken file is refused with its reason, every kind of odd image is converted."""

import io

import numpy as np
import pytest
from PIL import Image

from components.shared.data.decode import ImageRejectedError, decode, decode_resized, resize


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
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"not an image at all", "not an image"),
        (b"<html></html>", "not an image"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (JPEG[:20], "not an image|truncated"),
        (PNG[: len(PNG) // 2], "truncated"),
        (PNG[:100] + b"\0" * 50 + PNG[150:], "truncated or corrupt"),
        (b"P6 16 12 255\n" + bytes(100), "truncated"),
        (b"P3 2 2 255\n1 2 3", "truncated or corrupt"),
        (b"Pf 1 1 -1.0\n" + bytes(4), "32-bit grey"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 100, "not an image|truncated"),
    ],
)
def test_broken_files_are_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ImageRejectedError, match=reason):
        decode(data)


@pytest.mark.parametrize("data", [JPEG, b"P6 99999 99999 255\n"])
def test_too_many_pixels_are_refused_before_they_are_decoded(data: bytes) -> None:
    with pytest.raises(ImageRejectedError, match="more than max_pixels=1000"):
        decode(data, max_pixels=1000)


def test_portable_maps_are_read_in_every_form() -> None:
    scene = np.asarray(SCENE)
    assert np.array_equal(np.asarray(decode(_encoded(SCENE, "PPM"))), scene)
    grey = np.asarray(SCENE.convert("L"))
    assert np.array_equal(np.asarray(decode(_encoded(SCENE.convert("L"), "PPM")))[..., 0], grey)
    bits = np.asarray(decode(b"P1 2 1\n1 0\n"))
    assert bits[0, :, 0].tolist() == [0, 255]


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    expected = np.round(values / 257).astype(int).tolist()
    for data in (
        _encoded(Image.fromarray(values), "PNG"),
        b"P5 8 8 65535\n" + values.astype(">u2").tobytes(),
    ):
        assert np.asarray(decode(data))[..., 0].tolist() == expected


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1"])
def test_other_modes_become_rgb(mode: str) -> None:
    image = decode(_encoded(SCENE.convert(mode), "TIFF" if mode == "CMYK" else "PNG"))
    assert (image.mode, image.size) == ("RGB", SCENE.size)
    assert np.asarray(image).std() > 5


def test_exif_rotation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(_encoded(SCENE, "JPEG", exif=exif)).size == (120, 160)


def test_resizing_is_pillows_bicubic_squeeze() -> None:
    expected = np.asarray(SCENE.resize((64, 64), Image.Resampling.BICUBIC))
    assert np.array_equal(decode_resized(PNG, size=64), expected)


@pytest.mark.parametrize(
    ("size", "target", "decoded"),
    [
        ((4032, 3024), 672, (2016, 1512)),  # 12 megapixels at the size of several views
        ((4032, 3024), 448, (2016, 1512)),
        ((4032, 3024), 224, (1008, 756)),
        ((1280, 720), 224, (1280, 720)),
        ((1600, 896), 224, (800, 448)),  # exactly four times the target
        ((1600, 895), 224, (1600, 895)),
    ],
)
def test_a_large_photo_is_decoded_at_no_less_than_twice_the_target(
    size: tuple[int, int], target: int, decoded: tuple[int, int]
) -> None:
    data = _encoded(SCENE.resize(size), "JPEG", quality=90)
    assert decode(data, target_size=target).size == decoded
    assert decode(data).size == size


@pytest.mark.parametrize(
    ("size", "most_mean", "least_psnr"), [((1600, 1200), 0.3, 50), ((256, 256), 0.5, 45)]
)
def test_a_reduced_decode_of_a_large_photo_looks_like_a_full_one(
    size: tuple[int, int], most_mean: float, least_psnr: float
) -> None:
    """A photo of more than the target, and one of exactly four times it, the worst case."""
    data = _encoded(SCENE.resize(size, Image.Resampling.BICUBIC), "JPEG", quality=90)
    full = resize(decode(data), 64).astype(float)
    difference = np.abs(full - decode_resized(data, size=64))
    assert difference.max() > 0  # otherwise nothing was reduced
    assert difference.mean() < most_mean
    assert 10 * np.log10(255**2 / np.square(difference).mean()) > least_psnr

"""Decoding and resizing of image files: one path for training, evaluation and the bundle.

The pixels equal what transformers computes from the same file: upright by EXIF, RGB by Pillow's
conversion, squeezed to a square by Pillow's antialiased bicubic filter. Two differences, both on
purpose: 16-bit grey is scaled to 8 bits (Pillow clips it to white), and ingest decodes a JPEG of at
least four times the target on both axes at 1/2, 1/4 or 1/8 size by its DCT, always at least twice
the target (Pillow's rule `reducing_gap=2.0`, which keeps "very close to fair resampling"). A bundle
decodes at full size. Against that, photographs of 12 megapixels changed by 0.1 of 255 on average at
224, 448 and 672 pixels, 2 at the 99th percentile (PSNR 55 to 59 dB). At exactly four times the
target, the worst case, it is 0.4 (51 dB): features of DINOv2-S move as far as by saving the
photograph at quality 85 instead of 92 (cosine distance 3e-5 and 2e-5 on 100 street scenes).
"""

import contextlib
import ctypes
import io
import struct
import warnings
import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError, _imaging

from components.shared.contracts.errors import DataError

# No other format is ever parsed: fewer parsers meet untrusted bytes (Pillow's EPS plugin would
# start Ghostscript). The content decides, never the file's name: web photographs are often named
# .jpg whatever they are. PPM is also PBM and PGM.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 100_000_000
_DRAFT_GAP = 2
# Errors of Pillow's parsers on damaged bytes, as observed; MemoryError is not among them.
_CORRUPT = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    ZeroDivisionError,
    struct.error,
    zlib.error,
)


class ImageRejectedError(DataError):
    """The file cannot be used as an image; the message is the reason."""


def _silence_libtiff() -> None:
    """Take libtiff's printing of errors to stderr away: Pillow raises the same errors.

    It is found among the libraries that Pillow's module has loaded. Where it is a part of that
    module without a name of its own, it goes on printing.
    """
    with contextlib.suppress(OSError, AttributeError):
        pillow = ctypes.CDLL(_imaging.__file__)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            handler = getattr(pillow, name)
            handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            handler(None)


_silence_libtiff()


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Silence Pillow's warnings of damaged metadata and of large images in the block.

    Neither affects the pixels, and `decode` checks the size. The filter is one for all threads, so
    the block is around those that decode.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def decode(
    data: bytes, *, max_pixels: int = MAX_PIXELS, target_size: int | None = None
) -> Image.Image:
    """Decode a file to an upright RGB image; of several frames the first counts.

    Args:
        data: the file's bytes.
        max_pixels: limit of width times height, checked before any pixel is decoded.
        target_size: side in pixels to which the image will be resized: a large JPEG is decoded at
            reduced size, as the module says. None decodes at full size.

    Raises:
        ImageRejectedError: empty, not an image of a supported format, too many pixels, truncated or
            corrupt, or a pixel type without a range.
    """
    if not data:
        raise ImageRejectedError("empty file")

    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _refuse_large(image, max_pixels)
            if target_size is not None:
                # Has no effect on other formats and on images that are not large enough.
                image.draft(None, (target_size * _DRAFT_GAP, target_size * _DRAFT_GAP))

            image.load()
            # Pillow accepts a PNG whose last bytes are missing, once its pixels are complete.
            if image.format == "PNG" and b"IEND" not in data:
                raise ImageRejectedError("truncated or corrupt (no end marker)")
            ImageOps.exif_transpose(image, in_place=True)  # the other form copies every image
    except ImageRejectedError:
        raise
    except UnidentifiedImageError:
        raise ImageRejectedError(
            "not an image in a supported format (" + ", ".join(FORMATS) + ")"
        ) from None
    except Image.DecompressionBombError:
        raise ImageRejectedError(f"more than max_pixels={max_pixels} pixels") from None
    except _CORRUPT as error:
        raise ImageRejectedError(
            f"truncated or corrupt ({' '.join(str(error).split())[:80]})"
        ) from error

    return _to_rgb(image)


def decode_resized(
    data: bytes, *, size: int, max_pixels: int = MAX_PIXELS
) -> npt.NDArray[np.uint8]:
    """Decode a file and squeeze it to (size, size, 3) uint8; errors as in `decode`."""
    return resize(decode(data, max_pixels=max_pixels, target_size=size), size)


def resize(image: Image.Image, size: int) -> npt.NDArray[np.uint8]:
    """Return (size, size, 3) uint8 by antialiased bicubic interpolation."""
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC), dtype=np.uint8)


def _refuse_large(image: Image.Image, max_pixels: int) -> None:
    """Refuse an image of too many pixels, before any of them is decoded."""
    if image.width * image.height > max_pixels:
        raise ImageRejectedError(
            f"{image.width} x {image.height} is more than max_pixels={max_pixels}"
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB; 16-bit grey is scaled to 8 bits.

    Pillow has 16-bit PGM in 32 bits, scaled to 0 to 65535.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        grey = np.asarray(image, dtype=np.uint32)
        image = Image.fromarray(((grey * 255 + 32767) // 65535).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ImageRejectedError(
            "32-bit grey pixels have no defined white; save the image with 8 or 16 bits"
        )

    if image.mode == "RGB":
        return image  # `convert` would copy it

    try:
        return image.convert("RGB")
    except ValueError as error:
        raise ImageRejectedError(f"pixel type {image.mode} cannot be converted to RGB") from error

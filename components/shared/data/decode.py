"""What pixels does this file hold? The one decode-and-resize path of training, evaluation and the bundle.

The pixels equal what transformers' image pipeline computes: upright by EXIF, RGB, squeezed to a square by Pillow's
antialiased bicubic filter.
"""

import io
import warnings

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from components.shared.errors import DataError

FORMAT_OF_SUFFIX = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF",
    ".gif": "GIF",
}  # fmt: skip
MAX_PIXELS = 100_000_000
# Pillow's rule for `reducing_gap`: from three times the target size on, a reduced decode looks like a full one.
_DRAFT_GAP = 3


class ImageRejectedError(DataError):
    """The file cannot be used as an image; the message is the reason."""


def decode(data: bytes, *, name: str, max_pixels: int = MAX_PIXELS, target_size: int | None = None) -> Image.Image:
    """The upright RGB image in `data`; `name` gives the expected format by its suffix.

    With `target_size`, a JPEG of at least three times that size on both axes is decoded at reduced resolution.
    Raises ImageRejectedError: empty, not an image, another format than the suffix says, too large, or truncated.
    """
    if not data:
        raise ImageRejectedError("empty file")
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        warnings.simplefilter("ignore", UserWarning)  # a damaged EXIF block does not damage the pixels
        try:
            with Image.open(io.BytesIO(data)) as image:
                _check_header(image, name, max_pixels)
                if target_size is not None and image.format == "JPEG":
                    image.draft(None, (target_size * _DRAFT_GAP, target_size * _DRAFT_GAP))
                image.load()
                return _to_rgb(ImageOps.exif_transpose(image))
        except ImageRejectedError:
            raise
        except UnidentifiedImageError:
            raise ImageRejectedError("not an image") from None
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise ImageRejectedError(f"more than {max_pixels:,} pixels") from None
        except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, KeyError, OverflowError) as error:
            raise ImageRejectedError(f"truncated or corrupt ({' '.join(str(error).split())[:80]})") from error


def decode_resized(data: bytes, *, name: str, size: int, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """(size, size, 3) uint8, squeezed without keeping the aspect ratio; errors as in `decode`."""
    return resize(decode(data, name=name, max_pixels=max_pixels, target_size=size), size)


def resize(image: Image.Image, size: int) -> npt.NDArray[np.uint8]:
    """(size, size, 3) uint8 by antialiased bicubic interpolation."""
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC), dtype=np.uint8)


def _check_header(image: Image.Image, name: str, max_pixels: int) -> None:
    suffix = "." + name.rsplit(".", 1)[-1].lower() if "." in name.rsplit("/", 1)[-1] else ""
    expected = FORMAT_OF_SUFFIX.get(suffix)
    found = "JPEG" if image.format == "MPO" else image.format
    if expected is not None and found != expected:
        raise ImageRejectedError(f"content is {found}, but the name ends with {suffix}")
    if image.width * image.height > max_pixels:
        raise ImageRejectedError(f"{image.width}x{image.height} is more than {max_pixels:,} pixels")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        # 16-bit: Pillow's own conversion clips everything above 255 to white.
        values = np.asarray(image, dtype=np.float64)
        scaled = values / 257 if image.mode.startswith("I;16") or values.max(initial=0) > 255 else values
        image = Image.fromarray(np.clip(np.round(scaled), 0, 255).astype(np.uint8))
    return image.convert("RGB")

"""Colours of contributions: orange speaks for an outcome, blue against it, clear says nothing.

The two hues are those of the report, and differ for colour-blind readers too.
"""

import io

import numpy as np
import numpy.typing as npt

FOR, AGAINST = (224, 102, 0), (26, 102, 204)  # red, green, blue
_LARGEST_ALPHA = 0.85  # the photograph stays visible below the strongest patch


def largest(contributions: npt.NDArray[np.float64]) -> float:
    """Return the end of the colour scale: the largest size of any contribution, above 0."""
    return max(float(np.abs(contributions).max()), float(np.finfo(np.float32).tiny))


def colours(
    contributions: npt.NDArray[np.float64], end: float, strength: float
) -> npt.NDArray[np.uint8]:
    """Return (..., 4) uint8 red, green, blue and alpha of contributions (...).

    The alpha grows linearly with the size of the contribution, up to `end`. All of it is multiplied
    by `strength`, 0 to 1, so that a picture fades whose contributions matter little.
    """
    relative = np.clip(contributions / end, -1, 1)[..., None]
    colour = np.where(relative > 0, FOR, AGAINST)
    alpha = np.abs(relative) * _LARGEST_ALPHA * strength * 255
    return np.concatenate([colour, alpha.round()], axis=-1).astype(np.uint8)


def encode_overlay(contributions: npt.NDArray[np.float64], strength: float) -> bytes:
    """Return contributions (H, W) as a PNG of one pixel each, to be laid over the photograph."""
    from PIL import Image  # readers need no Pillow

    buffer = io.BytesIO()
    rgba = colours(contributions, largest(contributions), strength)
    Image.fromarray(rgba).save(buffer, format="PNG")
    return buffer.getvalue()

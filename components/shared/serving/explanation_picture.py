"""The picture of an explanation: the photograph, and beside it where the evidence lies in it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from components.shared.contracts.listing import printable
from components.shared.data.contribution_colours import colours, largest
from components.shared.data.decode import decode

if TYPE_CHECKING:  # loads torch
    from components.shared.serving.explanation import Explanation

_INCHES, _DPI = (10.0, 4.9), 110
_LONGEST = 1024  # pixels of the photograph's longer side: more than the picture has room for
_TICKS = 101  # of the colour bar
_MOSTLY = 0.5  # a larger part of the CLS token outweighs all patches
_MOST = 60  # characters of a name in the title


def read_photograph(data: bytes) -> npt.NDArray[np.uint8]:
    """Return an encoded image as (H, W, 3) uint8 of its own shape, at most 1024 pixels a side."""
    picture = decode(data, target_size=_LONGEST)
    picture.thumbnail((_LONGEST, _LONGEST))
    return np.asarray(picture)


def write_picture(
    file: Path, photograph: npt.NDArray[np.uint8], explanation: "Explanation", decision: str
) -> None:
    """Draw an explanation as a PNG of 1100 x 539 pixels; the same arguments give the same bytes.

    Args:
        file: Where to write it.
        photograph: (H, W, 3) uint8 of any shape. The model sees it as a square, so that patches of
            a wide photograph are wide.
        explanation: Of this photograph.
        decision: The answer in words.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # A dollar in a name is no formula.
    with rc_context({"text.parse_math": False}):
        figure = Figure(figsize=_INCHES, dpi=_DPI, layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        box = _pixels_of(explanation.box, photograph)

        _photograph(left, photograph, explanation, box)
        image = _overlay(right, photograph, explanation, box)
        bar = figure.colorbar(image, ax=right, fraction=0.05, pad=0.02)
        bar.set_label(f"part of one patch, in log-odds of {_name(explanation.outcome)}", size=8)
        bar.ax.tick_params(labelsize=8)

        figure.suptitle(f"{printable(decision)}\n{_sum_in_words(explanation)}", size=10)
        figure.savefig(file, format="png", metadata={"Software": None})


def _photograph(
    axes: Any, photograph: npt.NDArray[np.uint8], explanation: "Explanation", box: tuple[int, ...]
) -> None:
    """Draw the photograph, with a frame around the view that decided."""
    from matplotlib.patches import Rectangle

    axes.imshow(photograph)
    axes.set_axis_off()
    title = "the photograph"
    if explanation.view is not None:
        left, top, right, bottom = box
        frame = Rectangle(
            (left, top), right - left, bottom - top, fill=False, edgecolor="#ffd500", linewidth=2.5
        )
        axes.add_patch(frame)
        what = "the full image" if explanation.view == 0 else f"view {explanation.view}"
        title = f"framed: {what} decided (weight {explanation.view_weight:.2f})"
    axes.set_title(title, size=9)


def _overlay(
    axes: Any, photograph: npt.NDArray[np.uint8], explanation: "Explanation", box: tuple[int, ...]
) -> Any:
    """Draw the view in grey with its patches' parts over it; return what the colour bar needs."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    left, top, right, bottom = box
    grey = photograph[top:bottom, left:right].mean(axis=2)
    end = largest(explanation.patches)
    axes.imshow(grey, cmap="gray", vmin=0, vmax=255)
    extent = (-0.5, grey.shape[1] - 0.5, grey.shape[0] - 0.5, -0.5)
    drawn = colours(explanation.patches, end, explanation.strength)
    axes.imshow(drawn, extent=extent, interpolation="nearest")
    axes.set_xlim(extent[:2])
    axes.set_ylim(extent[2:])
    axes.set_axis_off()

    name = _name(explanation.outcome)
    axes.set_title(f"orange speaks for {name}, blue against it", size=9)
    scale = colours(np.linspace(-end, end, _TICKS), end, explanation.strength) / 255.0

    return ScalarMappable(Normalize(-end, end), ListedColormap(_on_grey(scale)))


def _on_grey(rgba: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the colours (N, 3) of (N, 4) over middle grey, as they look on the photograph."""
    alpha = rgba[:, 3:]
    return rgba[:, :3] * alpha + 0.5 * (1 - alpha)


def _sum_in_words(explanation: "Explanation") -> str:
    """Return the margin as the sum of its parts, and the share that has no place in the image."""
    name = _name(explanation.outcome)
    what = f"log-odds of {name}" + (" over the threshold" if explanation.from_threshold else "")
    patches = float(explanation.patches.sum())
    warning = ": the colours explain little" if explanation.cls_share >= _MOSTLY else ""
    return (
        f"{what} {explanation.margin:+.2f} = patches {patches:+.2f}, CLS token"
        f" {explanation.cls:+.2f}, constant {explanation.constant:+.2f}\n"
        f"{explanation.cls_share:.0%} of the evidence is the CLS token's, which has no place in the"
        f" picture{warning}"
    )


def _pixels_of(
    box: tuple[float, float, float], photograph: npt.NDArray[np.uint8]
) -> tuple[int, int, int, int]:
    """Return (left, top, right, bottom) of a box in fractions, of at least one pixel."""
    height, width = photograph.shape[:2]
    left, top, side = box
    first = int(left * width), int(top * height)
    last = round((left + side) * width), round((top + side) * height)
    return (*first, max(first[0] + 1, last[0]), max(first[1] + 1, last[1]))


def _name(name: str) -> str:
    text = printable(name)
    return text if len(text) <= _MOST else f"{text[:_MOST]}..."

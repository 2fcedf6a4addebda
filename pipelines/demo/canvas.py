"""Where does a point of the street fall in the picture, and in which colour is it seen there?

World coordinates in metres: x to the right, y up from the road, z ahead of the camera. Pictures are
drawn at twice their size and reduced, which smooths edges.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

Colour = tuple[float, float, float]
Point = tuple[float, float, float]

WIDTH, HEIGHT = 320, 224
SUPERSAMPLING = 2
NEAREST = 2.2  # metres; anything closer is behind the bonnet


@dataclass(frozen=True)
class View:
    """A pinhole camera and the light it sees.

    Lengths on the picture are pixels of the drawn (doubled) size; `curve` bends the road by curve *
    z^2 metres to the right; `visibility` is the distance in metres at which haze has swallowed 63 %
    of a colour; `light` multiplies RGB.
    """

    focal: float
    centre: float
    horizon: float
    height: float
    curve: float
    light: Colour
    haze: Colour
    visibility: float


class Canvas:
    """Draws shapes given in world coordinates onto a picture."""

    def __init__(self, image: Image.Image, view: View) -> None:
        self.view = view
        self._draw = ImageDraw.Draw(image)

    def project(self, point: Point) -> tuple[float, float]:
        """Picture coordinates (column, row) of a world point with z > 0."""
        x, y, z = point
        view = self.view
        scale = view.focal / z
        return view.centre + scale * (x + view.curve * z * z), view.horizon + scale * (
            view.height - y
        )

    def shade(self, colour: Colour, z: float) -> tuple[int, int, int]:
        """The colour (0 to 255 per channel) under the scene's light, seen through z metres of
        haze.
        """
        clear = math.exp(-z / self.view.visibility)
        mixed = (
            c * light * clear + haze * (1 - clear)
            for c, light, haze in zip(colour, self.view.light, self.view.haze, strict=True)
        )
        red, green, blue = (min(255, max(0, round(value))) for value in mixed)
        return red, green, blue

    def polygon(self, points: Sequence[Point], colour: Colour, *, lit: bool = False) -> None:
        """Fill a polygon; `lit` surfaces shine by themselves."""
        z = min(point[2] for point in points)
        fill = (
            (round(colour[0]), round(colour[1]), round(colour[2])) if lit else self.shade(colour, z)
        )
        self._draw.polygon([self.project(point) for point in points], fill=fill)

    def upright(
        self,
        x: float,
        y: float,
        z: float,
        width: float,
        height: float,
        colour: Colour,
        *,
        lit: bool = False,
    ) -> None:
        """Fill a rectangle that faces the camera, centred on x, standing at height y."""
        left, right = x - width / 2, x + width / 2
        self.polygon(
            [(left, y, z), (right, y, z), (right, y + height, z), (left, y + height, z)],
            colour,
            lit=lit,
        )

    def disc(
        self,
        x: float,
        y: float,
        z: float,
        radius: float,
        colour: Colour,
        *,
        flat: float = 1.0,
        lit: bool = False,
    ) -> None:
        """Fill an ellipse around (x, y, z), `flat` times as high as wide."""
        column, row = self.project((x, y, z))
        across = radius * self.view.focal / z
        fill = (
            (round(colour[0]), round(colour[1]), round(colour[2])) if lit else self.shade(colour, z)
        )
        self._draw.ellipse(
            (column - across, row - across * flat, column + across, row + across * flat), fill=fill
        )

    def shadow(self, x: float, z: float, width: float) -> None:
        """A soft-looking dark patch on the ground under an object."""
        column, row = self.project((x, 0.0, z))
        across = width / 2 * self.view.focal / z
        self._draw.ellipse(
            (column - across, row - across * 0.16, column + across, row + across * 0.16),
            fill=self.shade((44, 44, 46), z),
        )

    def striped(
        self,
        x: float,
        y: float,
        z: float,
        width: float,
        height: float,
        colours: tuple[Colour, Colour],
        stripes: int,
    ) -> None:
        """A rectangle facing the camera with slanted stripes in two alternating colours."""
        self.upright(x, y, z, width, height, colours[0])
        left, step = x - width / 2, width / stripes
        slant = min(step, height) * 0.6
        for start in range(0, stripes, 2):
            a = left + start * step
            b = a + step
            top_a, top_b = min(a + slant, left + width), min(b + slant, left + width)
            self.polygon(
                [(a, y, z), (b, y, z), (top_b, y + height, z), (top_a, y + height, z)], colours[1]
            )

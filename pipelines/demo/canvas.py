"""Projection of street scenes onto pictures: shapes in world coordinates, colours through haze.

World coordinates are in metres: x to the right, y up from the road, z ahead of the camera. Pictures
are drawn at twice their size and reduced, which smooths edges.
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
class Camera:
    """A pinhole camera and its light.

    Attributes:
        focal: Focal length in pixels of the drawn (doubled) picture.
        centre: Column of the vanishing point, in the same pixels.
        horizon: Row of the horizon, in the same pixels.
        height: Height above the road in metres.
        curve: The road bends to the right by curve * z^2 metres.
        light: Factors of RGB.
        haze: Colour of the haze, 0 to 255 per channel.
        visibility: Distance in metres at which haze replaces 63 % of a colour.
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

    def __init__(self, image: Image.Image, camera: Camera) -> None:
        self.camera = camera
        self._draw = ImageDraw.Draw(image)

    def project(self, point: Point) -> tuple[float, float]:
        """Return the picture coordinates (column, row) of a world point with z > 0."""
        x, y, z = point
        camera = self.camera
        scale = camera.focal / z
        return camera.centre + scale * (x + camera.curve * z * z), camera.horizon + scale * (
            camera.height - y
        )

    def shade(self, colour: Colour, z: float) -> tuple[int, int, int]:
        """Return the colour (0 to 255) under the scene's light, through z metres of haze."""
        clear = math.exp(-z / self.camera.visibility)
        mixed = (
            c * light * clear + haze * (1 - clear)
            for c, light, haze in zip(colour, self.camera.light, self.camera.haze, strict=True)
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
        across = radius * self.camera.focal / z
        fill = (
            (round(colour[0]), round(colour[1]), round(colour[2])) if lit else self.shade(colour, z)
        )
        self._draw.ellipse(
            (column - across, row - across * flat, column + across, row + across * flat), fill=fill
        )

    def shadow(self, x: float, z: float, width: float) -> None:
        """Draw a dark ellipse on the ground under an object."""
        column, row = self.project((x, 0.0, z))
        across = width / 2 * self.camera.focal / z
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
        """Fill a rectangle that faces the camera with slanted stripes in two colours."""
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

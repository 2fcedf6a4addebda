"""Objects of any street: buildings, trees, vehicles, signs, and objects that resemble roadwork."""

from collections.abc import Callable
from dataclasses import dataclass

from pipelines.demo.canvas import NEAREST, Canvas, Colour

WHITE: Colour = (238, 236, 230)
RED: Colour = (205, 32, 30)
DARK: Colour = (34, 35, 38)
GREY: Colour = (128, 130, 132)


@dataclass(frozen=True)
class StreetObject:
    """An object on the ground, whose nearest face is centred on (x, z).

    Lengths are in metres; `variant` in [0, 1) is a random number for details of the drawing.
    """

    kind: str
    x: float
    z: float
    width: float
    height: float
    length: float
    colour: Colour
    variant: float


Painter = Callable[[Canvas, StreetObject], None]


def darker(colour: Colour, factor: float) -> Colour:
    """Return the colour scaled towards black."""
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


def building(canvas: Canvas, item: StreetObject) -> None:
    """Draw a block beside the road: the wall along it with windows, and the wall to the camera."""
    near, far = max(item.z, NEAREST), item.z + item.length
    side = -1.0 if item.x < 0 else 1.0
    inner, outer = item.x - side * item.width / 2, item.x + side * item.width / 2
    top = item.height
    canvas.polygon(
        [(inner, 0, far), (inner, 0, near), (inner, top, near), (inner, top, far)], item.colour
    )

    if item.z > NEAREST:
        front = darker(item.colour, 0.8)
        canvas.polygon(
            [(inner, 0, near), (outer, 0, near), (outer, top, near), (inner, top, near)], front
        )

    _windows(canvas, item, inner, near, far)


def _windows(canvas: Canvas, item: StreetObject, inner: float, near: float, far: float) -> None:
    columns, floors = max(1, int(item.length / 3.2)), max(1, int(item.height / 3.0))
    pane: Colour = (
        (250, 214, 140)
        if item.variant > 0.8
        else darker((150, 170, 190), 0.35 + 0.5 * item.variant)
    )

    for column in range(columns):
        z = item.z + (column + 0.5) * item.length / columns
        z0, z1 = max(z - 0.7, near), min(z + 0.7, far)
        if z1 - z0 < 0.3 or z0 > 60:
            continue

        for floor in range(floors):
            y = 1.0 + floor * 3.0
            canvas.polygon(
                [(inner, y, z1), (inner, y, z0), (inner, y + 1.5, z0), (inner, y + 1.5, z1)], pane
            )


def tree(canvas: Canvas, item: StreetObject) -> None:
    """Draw a trunk and three overlapping crowns."""
    radius = item.width / 2
    canvas.shadow(item.x, item.z, item.width)
    canvas.upright(item.x, 0, item.z, 0.14 * item.width, item.height * 0.6, (84, 62, 44))

    for dx, dy, shade in (
        (-0.35, 0.62, 0.8),
        (0.4, 0.66, 0.9),
        (0.05 - 0.2 * item.variant, 0.8, 1.05),
    ):
        canvas.disc(
            item.x + dx * radius,
            item.height * dy,
            item.z,
            radius * 0.8,
            darker(item.colour, shade),
        )


def vehicle(canvas: Canvas, item: StreetObject) -> None:
    """Draw a car, van or bus: the visible flank, then the end that faces the camera.

    Oncoming vehicles show head lamps, the others tail lamps.
    """
    width, height, near, far = item.width, item.height, item.z, item.z + item.length
    flank = item.x + (width / 2 if item.x < 0 else -width / 2)
    canvas.shadow(item.x, near, width * 1.3)
    waist = 0.55 * height
    canvas.polygon(
        [(flank, 0.3, far), (flank, 0.3, near), (flank, waist, near), (flank, waist, far)],
        darker(item.colour, 0.75),
    )
    half, top = width / 2, width * 0.42
    roof = item.x + (top if item.x < 0 else -top)
    cabin_far = far - (0.28 if height < 1.9 else 0.02) * item.length
    canvas.polygon(
        [
            (flank, waist, far),
            (flank, waist, near),
            (roof, height, near),
            (roof, height, cabin_far),
        ],
        darker(item.colour, 0.5),
    )
    for side in (-1, 1):
        canvas.upright(item.x + side * width * 0.36, 0, near, width * 0.14, 0.5, DARK)
    canvas.upright(item.x, 0.3, near, width, waist - 0.3, item.colour)
    canvas.polygon(
        [
            (item.x - half, waist, near),
            (item.x + half, waist, near),
            (item.x + top, height, near),
            (item.x - top, height, near),
        ],
        item.colour,
    )

    canvas.polygon(
        [
            (item.x - half * 0.84, waist * 1.04, near),
            (item.x + half * 0.84, waist * 1.04, near),
            (item.x + top * 0.84, height * 0.93, near),
            (item.x - top * 0.84, height * 0.93, near),
        ],
        (58, 70, 82),
    )

    lamp: Colour = (250, 246, 224) if item.x < 0 else (176, 24, 26)

    for side in (-1, 1):
        canvas.upright(
            item.x + side * width * 0.38, waist * 0.72, near, width * 0.16, 0.16, lamp, lit=True
        )


def school_bus(canvas: Canvas, item: StreetObject) -> None:
    """Draw an orange-yellow bus with dark rub rails: large, in the colour of machines."""
    vehicle(canvas, item)
    for y in (0.28, 0.44):
        canvas.upright(item.x, item.height * y, item.z, item.width, 0.09, DARK)
    canvas.upright(item.x, item.height * 0.9, item.z, item.width * 0.6, 0.24, (250, 235, 205))


def person(canvas: Canvas, item: StreetObject) -> None:
    """Draw legs, coat and head."""
    canvas.upright(item.x, 0, item.z, 0.3, item.height * 0.48, DARK)
    canvas.upright(item.x, item.height * 0.42, item.z, 0.48, item.height * 0.44, item.colour)
    canvas.disc(item.x, item.height * 0.93, item.z, 0.13, (196, 152, 124))


def lamp_post(canvas: Canvas, item: StreetObject) -> None:
    """Draw a street lamp with its arm over the road."""
    canvas.upright(item.x, 0, item.z, 0.14, item.height, (92, 96, 98))
    arm = -1.6 if item.x > 0 else 1.6
    canvas.upright(item.x + arm / 2, item.height, item.z, abs(arm), 0.12, (92, 96, 98))


def round_sign(canvas: Canvas, item: StreetObject) -> None:
    """Draw a prohibition, speed-limit or mandatory sign: red ring on white, or blue."""
    canvas.upright(item.x, 0, item.z, 0.09, item.height, GREY)
    canvas.disc(item.x, item.height, item.z, 0.36, RED if item.variant < 0.6 else (28, 74, 168))
    canvas.disc(item.x, item.height, item.z, 0.25, WHITE if item.variant < 0.6 else (60, 110, 200))


def warning_sign(canvas: Canvas, item: StreetObject) -> None:
    """Draw a red-rimmed triangle or an orange diamond that warns of a bend, children or ice."""
    canvas.upright(item.x, 0, item.z, 0.09, item.height, GREY)
    size, y, z = 0.5, item.height, item.z
    if item.variant < 0.6:
        for scale, colour in ((1.0, RED), (0.62, WHITE)):
            s = size * scale
            canvas.polygon(
                [
                    (item.x - s, y - 0.6 * s, z),
                    (item.x + s, y - 0.6 * s, z),
                    (item.x, y + 1.1 * s, z),
                ],
                colour,
            )
    else:
        for scale, colour in ((1.15, DARK), (1.0, (244, 150, 26))):
            s = size * scale
            canvas.polygon(
                [
                    (item.x - s, y, z),
                    (item.x, y - s, z),
                    (item.x + s, y, z),
                    (item.x, y + s, z),
                ],
                colour,
            )

    canvas.disc(item.x, y, z, 0.1, DARK)


def traffic_light(canvas: Canvas, item: StreetObject) -> None:
    """Draw a signal head with one lamp lit."""
    canvas.upright(item.x, 0, item.z, 0.13, item.height, (70, 72, 74))
    canvas.upright(item.x, item.height, item.z, 0.46, 1.3, (28, 30, 30))
    lamps: tuple[Colour, ...] = ((240, 42, 34), (255, 176, 30), (52, 214, 96))
    on = int(item.variant * 3)

    for i, colour in enumerate(lamps):
        lit = i == on
        canvas.disc(
            item.x,
            item.height + 1.08 - 0.42 * i,
            item.z,
            0.17,
            colour if lit else darker(colour, 0.25),
            lit=lit,
        )


def awning(canvas: Canvas, item: StreetObject) -> None:
    """Draw a shop's awning over the pavement, striped like a barrier."""
    inner = item.x
    edge = inner - (1.3 if inner > 0 else -1.3)
    stripes = 2 * int(item.length / 0.8) + 1
    low, high = item.height, item.height + 0.7

    for i in range(stripes):
        z0, z1 = (item.z + item.length * k / stripes for k in (i, i + 1))
        if z0 > NEAREST:
            colour = item.colour if i % 2 == 0 else WHITE
            canvas.polygon(
                [(inner, high, z1), (inner, high, z0), (edge, low, z0), (edge, low, z1)], colour
            )
            canvas.polygon(
                [(edge, low, z1), (edge, low, z0), (edge, low - 0.3, z0), (edge, low - 0.3, z1)],
                colour,
            )


def umbrella(canvas: Canvas, item: StreetObject) -> None:
    """Draw a café parasol, often orange: colour and outline of a cone, but on a pole."""
    canvas.shadow(item.x, item.z, item.width)
    canvas.upright(item.x, 0, item.z, 0.08, item.height, GREY)
    half, y = item.width / 2, item.height * 0.72
    for left, right, shade in (
        (-half, -half * 0.3, 0.85),
        (-half * 0.3, half * 0.3, 1.0),
        (half * 0.3, half, 0.9),
    ):
        canvas.polygon(
            [
                (item.x + left, y, item.z),
                (item.x + right, y, item.z),
                (item.x, item.height, item.z),
            ],
            darker(item.colour, shade),
        )


def bin_(canvas: Canvas, item: StreetObject) -> None:
    """Draw a litter bin on the pavement, orange in some towns."""
    canvas.shadow(item.x, item.z, 0.8)
    canvas.upright(item.x, 0, item.z, 0.55, item.height, item.colour)
    canvas.upright(item.x, item.height, item.z, 0.62, 0.12, darker(item.colour, 0.6))


PAINTERS: dict[str, Painter] = {
    "building": building,
    "tree": tree,
    "vehicle": vehicle,
    "school_bus": school_bus,
    "person": person,
    "lamp_post": lamp_post,
    "round_sign": round_sign,
    "warning_sign": warning_sign,
    "traffic_light": traffic_light,
    "awning": awning,
    "umbrella": umbrella,
    "bin": bin_,
}

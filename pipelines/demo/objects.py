"""What stands in any street: buildings, trees, vehicles, signs, and the objects easily taken for
roadwork.
"""

from collections.abc import Callable
from dataclasses import dataclass

from pipelines.demo.canvas import NEAREST, Canvas, Colour

WHITE: Colour = (238, 236, 230)
RED: Colour = (205, 32, 30)
DARK: Colour = (34, 35, 38)
GREY: Colour = (128, 130, 132)


@dataclass(frozen=True)
class Thing:
    """An object on the ground: its nearest face is centred on (x, z); sizes in metres.

    `variant` in [0, 1) is a random number that the painter uses for details.
    """

    kind: str
    x: float
    z: float
    width: float
    height: float
    length: float
    colour: Colour
    variant: float


Painter = Callable[[Canvas, Thing], None]


def darker(colour: Colour, factor: float) -> Colour:
    """The colour scaled towards black."""
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


def building(canvas: Canvas, thing: Thing) -> None:
    """A block beside the road: the wall along the road with windows, and the wall that faces the
    camera.
    """
    near, far = max(thing.z, NEAREST), thing.z + thing.length
    side = -1.0 if thing.x < 0 else 1.0
    inner, outer = thing.x - side * thing.width / 2, thing.x + side * thing.width / 2
    top = thing.height
    canvas.polygon(
        [(inner, 0, far), (inner, 0, near), (inner, top, near), (inner, top, far)], thing.colour
    )
    if thing.z > NEAREST:
        front = darker(thing.colour, 0.8)
        canvas.polygon(
            [(inner, 0, near), (outer, 0, near), (outer, top, near), (inner, top, near)], front
        )
    _windows(canvas, thing, inner, near, far)


def _windows(canvas: Canvas, thing: Thing, inner: float, near: float, far: float) -> None:
    columns, floors = max(1, int(thing.length / 3.2)), max(1, int(thing.height / 3.0))
    pane: Colour = (
        (250, 214, 140)
        if thing.variant > 0.8
        else darker((150, 170, 190), 0.35 + 0.5 * thing.variant)
    )
    for column in range(columns):
        z = thing.z + (column + 0.5) * thing.length / columns
        z0, z1 = max(z - 0.7, near), min(z + 0.7, far)
        if z1 - z0 < 0.3 or z0 > 60:
            continue
        for floor in range(floors):
            y = 1.0 + floor * 3.0
            canvas.polygon(
                [(inner, y, z1), (inner, y, z0), (inner, y + 1.5, z0), (inner, y + 1.5, z1)], pane
            )


def tree(canvas: Canvas, thing: Thing) -> None:
    """A trunk and three overlapping crowns."""
    radius = thing.width / 2
    canvas.shadow(thing.x, thing.z, thing.width)
    canvas.upright(thing.x, 0, thing.z, 0.14 * thing.width, thing.height * 0.6, (84, 62, 44))
    for dx, dy, shade in (
        (-0.35, 0.62, 0.8),
        (0.4, 0.66, 0.9),
        (0.05 - 0.2 * thing.variant, 0.8, 1.05),
    ):
        canvas.disc(
            thing.x + dx * radius,
            thing.height * dy,
            thing.z,
            radius * 0.8,
            darker(thing.colour, shade),
        )


def vehicle(canvas: Canvas, thing: Thing) -> None:
    """A car, van or bus: the visible flank, then the end that faces the camera; oncoming ones show
    head lamps.
    """
    width, height, near, far = thing.width, thing.height, thing.z, thing.z + thing.length
    flank = thing.x + (width / 2 if thing.x < 0 else -width / 2)
    canvas.shadow(thing.x, near, width * 1.3)
    waist = 0.55 * height
    canvas.polygon(
        [(flank, 0.3, far), (flank, 0.3, near), (flank, waist, near), (flank, waist, far)],
        darker(thing.colour, 0.75),
    )
    half, top = width / 2, width * 0.42
    roof = thing.x + (top if thing.x < 0 else -top)
    cabin_far = far - (0.28 if height < 1.9 else 0.02) * thing.length
    canvas.polygon(
        [
            (flank, waist, far),
            (flank, waist, near),
            (roof, height, near),
            (roof, height, cabin_far),
        ],
        darker(thing.colour, 0.5),
    )
    for side in (-1, 1):
        canvas.upright(thing.x + side * width * 0.36, 0, near, width * 0.14, 0.5, DARK)
    canvas.upright(thing.x, 0.3, near, width, waist - 0.3, thing.colour)
    canvas.polygon(
        [
            (thing.x - half, waist, near),
            (thing.x + half, waist, near),
            (thing.x + top, height, near),
            (thing.x - top, height, near),
        ],
        thing.colour,
    )
    canvas.polygon(
        [
            (thing.x - half * 0.84, waist * 1.04, near),
            (thing.x + half * 0.84, waist * 1.04, near),
            (thing.x + top * 0.84, height * 0.93, near),
            (thing.x - top * 0.84, height * 0.93, near),
        ],
        (58, 70, 82),
    )
    lamp: Colour = (250, 246, 224) if thing.x < 0 else (176, 24, 26)
    for side in (-1, 1):
        canvas.upright(
            thing.x + side * width * 0.38, waist * 0.72, near, width * 0.16, 0.16, lamp, lit=True
        )


def school_bus(canvas: Canvas, thing: Thing) -> None:
    """An orange-yellow bus with dark rub rails: large, the colour of machines, and harmless."""
    vehicle(canvas, thing)
    for y in (0.28, 0.44):
        canvas.upright(thing.x, thing.height * y, thing.z, thing.width, 0.09, DARK)
    canvas.upright(thing.x, thing.height * 0.9, thing.z, thing.width * 0.6, 0.24, (250, 235, 205))


def person(canvas: Canvas, thing: Thing) -> None:
    """Legs, coat and head."""
    canvas.upright(thing.x, 0, thing.z, 0.3, thing.height * 0.48, DARK)
    canvas.upright(thing.x, thing.height * 0.42, thing.z, 0.48, thing.height * 0.44, thing.colour)
    canvas.disc(thing.x, thing.height * 0.93, thing.z, 0.13, (196, 152, 124))


def lamp_post(canvas: Canvas, thing: Thing) -> None:
    """A street lamp with its arm over the road."""
    canvas.upright(thing.x, 0, thing.z, 0.14, thing.height, (92, 96, 98))
    arm = -1.6 if thing.x > 0 else 1.6
    canvas.upright(thing.x + arm / 2, thing.height, thing.z, abs(arm), 0.12, (92, 96, 98))


def round_sign(canvas: Canvas, thing: Thing) -> None:
    """A prohibition, speed-limit or mandatory sign: red ring on white, or blue."""
    canvas.upright(thing.x, 0, thing.z, 0.09, thing.height, GREY)
    canvas.disc(thing.x, thing.height, thing.z, 0.36, RED if thing.variant < 0.6 else (28, 74, 168))
    canvas.disc(
        thing.x, thing.height, thing.z, 0.25, WHITE if thing.variant < 0.6 else (60, 110, 200)
    )


def warning_sign(canvas: Canvas, thing: Thing) -> None:
    """A red-rimmed triangle, or an orange diamond, that warns of a bend, children or ice."""
    canvas.upright(thing.x, 0, thing.z, 0.09, thing.height, GREY)
    size, y, z = 0.5, thing.height, thing.z
    if thing.variant < 0.6:
        for scale, colour in ((1.0, RED), (0.62, WHITE)):
            s = size * scale
            canvas.polygon(
                [
                    (thing.x - s, y - 0.6 * s, z),
                    (thing.x + s, y - 0.6 * s, z),
                    (thing.x, y + 1.1 * s, z),
                ],
                colour,
            )
    else:
        for scale, colour in ((1.15, DARK), (1.0, (244, 150, 26))):
            s = size * scale
            canvas.polygon(
                [
                    (thing.x - s, y, z),
                    (thing.x, y - s, z),
                    (thing.x + s, y, z),
                    (thing.x, y + s, z),
                ],
                colour,
            )
    canvas.disc(thing.x, y, z, 0.1, DARK)


def traffic_light(canvas: Canvas, thing: Thing) -> None:
    """A signal head with one lamp lit."""
    canvas.upright(thing.x, 0, thing.z, 0.13, thing.height, (70, 72, 74))
    canvas.upright(thing.x, thing.height, thing.z, 0.46, 1.3, (28, 30, 30))
    lamps: tuple[Colour, ...] = ((240, 42, 34), (255, 176, 30), (52, 214, 96))
    on = int(thing.variant * 3)
    for i, colour in enumerate(lamps):
        lit = i == on
        canvas.disc(
            thing.x,
            thing.height + 1.08 - 0.42 * i,
            thing.z,
            0.17,
            colour if lit else darker(colour, 0.25),
            lit=lit,
        )


def awning(canvas: Canvas, thing: Thing) -> None:
    """A shop's striped awning over the pavement: the stripes of a barrier, in the wrong place."""
    inner = thing.x
    edge = inner - (1.3 if inner > 0 else -1.3)
    stripes = 2 * int(thing.length / 0.8) + 1
    low, high = thing.height, thing.height + 0.7
    for i in range(stripes):
        z0, z1 = (thing.z + thing.length * k / stripes for k in (i, i + 1))
        if z0 > NEAREST:
            colour = thing.colour if i % 2 == 0 else WHITE
            canvas.polygon(
                [(inner, high, z1), (inner, high, z0), (edge, low, z0), (edge, low, z1)], colour
            )
            canvas.polygon(
                [(edge, low, z1), (edge, low, z0), (edge, low - 0.3, z0), (edge, low - 0.3, z1)],
                colour,
            )


def umbrella(canvas: Canvas, thing: Thing) -> None:
    """A café parasol, often orange: a cone's colour and outline, but upside up on a pole and on the
    pavement.
    """
    canvas.shadow(thing.x, thing.z, thing.width)
    canvas.upright(thing.x, 0, thing.z, 0.08, thing.height, GREY)
    half, y = thing.width / 2, thing.height * 0.72
    for left, right, shade in (
        (-half, -half * 0.3, 0.85),
        (-half * 0.3, half * 0.3, 1.0),
        (half * 0.3, half, 0.9),
    ):
        canvas.polygon(
            [
                (thing.x + left, y, thing.z),
                (thing.x + right, y, thing.z),
                (thing.x, thing.height, thing.z),
            ],
            darker(thing.colour, shade),
        )


def bin_(canvas: Canvas, thing: Thing) -> None:
    """A litter bin on the pavement, orange in some towns."""
    canvas.shadow(thing.x, thing.z, 0.8)
    canvas.upright(thing.x, 0, thing.z, 0.55, thing.height, thing.colour)
    canvas.upright(thing.x, thing.height, thing.z, 0.62, 0.12, darker(thing.colour, 0.6))


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

"""Roadwork sites: their objects and how they are laid out."""

import numpy as np

from pipelines.demo.canvas import Canvas, Colour
from pipelines.demo.objects import DARK, GREY, RED, WHITE, Painter, StreetObject, darker, person

ORANGE: Colour = (244, 96, 22)
MACHINE: Colour = (238, 170, 28)


def cone(canvas: Canvas, item: StreetObject) -> None:
    """Draw an orange cone with two white bands on a dark foot."""
    x, z, height, half = item.x, item.z, item.height, 0.27 * item.height
    canvas.shadow(x, z, height * 0.9)
    canvas.upright(x, 0, z, height * 0.72, height * 0.07, darker(item.colour, 0.6))
    tip = half * 0.18
    canvas.polygon(
        [(x - half, 0.05, z), (x + half, 0.05, z), (x + tip, height, z), (x - tip, height, z)],
        item.colour,
    )

    for low, high in ((0.34, 0.5), (0.64, 0.78)):
        a, b = half * (1 - 0.82 * low), half * (1 - 0.82 * high)
        canvas.polygon(
            [
                (x - a, height * low, z),
                (x + a, height * low, z),
                (x + b, height * high, z),
                (x - b, height * high, z),
            ],
            WHITE,
        )


def barrier(canvas: Canvas, item: StreetObject) -> None:
    """Draw boards with slanted red and white stripes on two feet."""
    for side in (-0.4, 0.4):
        canvas.upright(item.x + side * item.width, 0, item.z, 0.1, item.height, GREY)
    stripes = 2 * max(2, round(item.width / 0.5)) + 1
    canvas.striped(
        item.x,
        item.height * 0.64,
        item.z,
        item.width,
        item.height * 0.36,
        (WHITE, RED),
        stripes,
    )

    if item.variant < 0.7:
        canvas.striped(
            item.x,
            item.height * 0.22,
            item.z,
            item.width,
            item.height * 0.3,
            (WHITE, RED),
            stripes,
        )


def beacon(canvas: Canvas, item: StreetObject) -> None:
    """Draw a red and white guide post, most with a yellow warning lamp on top."""
    canvas.shadow(item.x, item.z, 0.6)
    canvas.upright(item.x, 0, item.z, 0.5, 0.12, DARK)
    bands = 5
    for band in range(bands):
        y = 0.12 + band * item.height / bands
        canvas.upright(
            item.x, y, item.z, 0.28, item.height / bands, RED if band % 2 == 0 else WHITE
        )

    if item.variant < 0.7:
        canvas.disc(item.x, item.height + 0.28, item.z, 0.17, (255, 196, 40), lit=True)


def excavator(canvas: Canvas, item: StreetObject) -> None:
    """Draw tracks, turret with cab, and a two-part arm with a bucket.

    `variant` turns the excavator to the left or to the right.
    """
    x, z, size = item.x, item.z, item.height / 3.0
    turn = 1.0 if item.variant < 0.5 else -1.0

    def part(points: tuple[tuple[float, float], ...], colour: Colour) -> None:
        canvas.polygon([(x + turn * px * size, py * size, z) for px, py in points], colour)

    canvas.shadow(x, z, 4.2 * size)
    part(((-1.6, 0.0), (1.5, 0.0), (1.7, 0.35), (1.5, 0.75), (-1.6, 0.75), (-1.8, 0.35)), DARK)
    part(((-1.6, 0.8), (1.0, 0.8), (1.0, 1.6), (-1.6, 1.9)), item.colour)
    part(((0.0, 1.2), (1.0, 1.2), (0.9, 2.8), (0.1, 2.8)), darker(item.colour, 0.85))
    part(((0.2, 1.8), (0.88, 1.8), (0.82, 2.65), (0.25, 2.65)), (74, 92, 104))
    part(((0.9, 1.2), (1.2, 1.2), (2.5, 3.2), (2.2, 3.5)), item.colour)
    part(((2.2, 3.5), (2.5, 3.2), (3.3, 1.4), (3.0, 1.3)), darker(item.colour, 0.9))
    part(((2.7, 1.4), (3.5, 1.4), (3.2, 0.6), (2.6, 0.8)), (64, 60, 58))


def spoil(canvas: Canvas, item: StreetObject) -> None:
    """Draw a heap of earth beside a pit."""
    x, z, half, top = item.x, item.z, item.width / 2, item.height
    outline = [
        (x - half, 0, z),
        (x + half, 0, z),
        (x + 0.3 * half, top, z),
        (x - 0.2 * half, 0.9 * top, z),
    ]
    canvas.polygon(outline, item.colour)


def worker(canvas: Canvas, item: StreetObject) -> None:
    """Draw a person in a bright vest with a helmet."""
    person(canvas, item)
    canvas.upright(item.x, item.height * 0.58, item.z, 0.48, 0.08, WHITE)
    canvas.disc(item.x, item.height * 0.99, item.z, 0.13, (245, 210, 40), flat=0.6)


PAINTERS: dict[str, Painter] = {
    "cone": cone,
    "barrier": barrier,
    "beacon": beacon,
    "excavator": excavator,
    "spoil": spoil,
    "worker": worker,
}


def lay_out(rng: np.random.Generator, start: float, lane: float) -> list[StreetObject]:
    """Return the objects of one site.

    Three layouts: a tapering row of cones, a row of beacons with barriers, an excavation. Details
    vary.

    Args:
        rng: Source of all random details.
        start: Distance of the site's begin in metres.
        lane: x of the centre of its lane in metres.
    """
    layout = rng.choice(("cones", "barriers", "excavation"), p=(0.4, 0.3, 0.3))
    items: list[StreetObject] = []

    def add(
        kind: str, x: float, z: float, width: float, height: float, colour: Colour = ORANGE
    ) -> None:
        items.append(
            StreetObject(
                kind, float(x), float(z), width, float(height), 0.0, colour, float(rng.random())
            )
        )

    if layout == "cones":
        side = rng.choice((-1.0, 1.0))
        height = rng.uniform(0.9, 1.25)
        for i in range(rng.integers(5, 10)):
            add(
                "cone",
                lane + side * (1.4 - 0.45 * i) + rng.normal(0, 0.08),
                start + 1.8 * i,
                0.0,
                height,
            )
    elif layout == "barriers":
        for i in range(rng.integers(2, 5)):
            add(
                "beacon",
                lane + rng.choice((-1.6, 1.6)),
                start + 2.2 * i,
                0.0,
                rng.uniform(1.1, 1.4),
            )

        for i in range(rng.integers(1, 4)):
            add(
                "barrier",
                lane + rng.normal(0, 0.5),
                start + 3 * i + rng.uniform(0, 1),
                rng.uniform(2.0, 3.4),
                rng.uniform(1.1, 1.4),
                RED,
            )
    else:
        machine = tuple(
            float(c) for c in np.asarray(MACHINE) * rng.uniform(0.85, 1.05) + rng.normal(0, 6, 3)
        )
        add(
            "excavator",
            lane,
            start + 3,
            0.0,
            rng.uniform(2.6, 3.4),
            (machine[0], machine[1], machine[2]),
        )

        add(
            "spoil",
            lane + rng.choice((-2.0, 2.0)),
            start + 3.5,
            rng.uniform(1.5, 3.0),
            rng.uniform(0.5, 1.1),
            (110, 84, 62),
        )
        add("barrier", lane + rng.normal(0, 0.4), start, rng.uniform(1.8, 3.0), 1.2, RED)

    if rng.random() < 0.35:
        add(
            "worker",
            lane + rng.uniform(-1.5, 1.5),
            start + rng.uniform(1, 5),
            0.0,
            rng.uniform(1.65, 1.85),
        )

    return items

"""Street scenes as a function of (seed, drive, frame), and their photographs.

A drive is one camera on one day: weather, palette, road and lens stay the same. It passes locations
of one to three frames each; a location has its own buildings and traffic, with or without a
roadwork site. Every random number comes from (seed, drive, location or frame), so that any frame
can be drawn alone.
"""

import functools
import io
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from components.shared.contracts.random_streams import DemoStream
from pipelines.demo import objects, roadwork
from pipelines.demo.canvas import HEIGHT, NEAREST, SUPERSAMPLING, WIDTH, Camera, Canvas, Colour
from pipelines.demo.objects import WHITE, StreetObject

FRAMES_PER_DRIVE = 10
DAYS = 6
_FARTHEST = 140.0  # metres
_PAINTERS = objects.PAINTERS | roadwork.PAINTERS
_ORANGES: tuple[Colour, ...] = ((240, 98, 26), (244, 124, 20), (226, 84, 34))
_CAR_COLOURS: tuple[Colour, ...] = (
    (200, 202, 204),
    (60, 62, 66),
    (28, 30, 34),
    (150, 26, 28),
    (36, 66, 128),
    (226, 226, 222),
    (110, 116, 110),
)
_WALLS: tuple[Colour, ...] = (
    (186, 168, 140),
    (150, 92, 72),
    (170, 172, 170),
    (204, 186, 150),
    (124, 128, 138),
    (196, 150, 120),
    (222, 216, 204),
)
# Objects that resemble roadwork, and the probability of each at a location.
_LOOKALIKES = (
    ("orange_car", 0.2),
    ("school_bus", 0.14),
    ("awning", 0.24),
    ("umbrella", 0.2),
    ("warning_sign", 0.25),
    ("traffic_light", 0.25),
    ("bin", 0.2),
)
# Light, sky above, sky at the horizon, visibility in metres.
_WEATHER: dict[str, tuple[Colour, Colour, Colour, float]] = {
    "clear": ((1.0, 0.98, 0.94), (84, 142, 214), (196, 218, 236), 420.0),
    "overcast": ((0.82, 0.84, 0.86), (150, 158, 168), (204, 208, 212), 240.0),
    "evening": ((0.94, 0.8, 0.68), (92, 96, 146), (244, 176, 122), 300.0),
    "dusk": ((0.56, 0.58, 0.66), (28, 34, 66), (96, 92, 118), 200.0),
    "fog": ((0.86, 0.88, 0.9), (188, 192, 196), (206, 209, 212), 60.0),
}


@dataclass(frozen=True)
class Drive:
    """The common properties of the frames of one drive; lengths in metres.

    `locations` holds (first frame, has a roadwork site) of each location.
    """

    camera: Camera
    sky: Colour
    clouds: NDArray[np.float32]
    half_width: float
    asphalt: Colour
    verge: Colour
    dashed: bool
    walls: tuple[Colour, ...]
    building_height: float
    density: float
    noise: float
    blur: float
    quality: int
    locations: tuple[tuple[int, bool], ...]


@dataclass(frozen=True)
class Scene:
    """One frame before it is drawn; `label` is 1 if `objects` contain a roadwork site, else 0."""

    drive: Drive
    objects: tuple[StreetObject, ...]
    travelled: float
    label: int
    noise_seed: tuple[int, ...]


@functools.lru_cache(maxsize=2)
def drive_of(seed: int, drive: int) -> Drive:
    """Return the common properties of all frames of a drive, counted from 0."""
    rng = np.random.default_rng((seed, drive, DemoStream.DRIVE))
    weather = str(rng.choice(list(_WEATHER), p=(0.34, 0.28, 0.16, 0.11, 0.11)))
    light, sky, haze, visibility = _WEATHER[weather]
    focal = WIDTH * SUPERSAMPLING * rng.uniform(0.8, 1.05)
    camera = Camera(
        focal=focal,
        centre=WIDTH * SUPERSAMPLING * rng.uniform(0.38, 0.62),
        horizon=HEIGHT * SUPERSAMPLING * rng.uniform(0.36, 0.54),
        height=rng.uniform(1.2, 1.9),
        curve=rng.normal(0, 0.0018),
        light=_scaled(light, rng.uniform(0.88, 1.08)),
        haze=haze,
        visibility=visibility * rng.uniform(0.8, 1.3),
    )

    grey = rng.uniform(72, 112)

    return Drive(
        camera=camera,
        sky=_scaled(sky, rng.uniform(0.85, 1.1)),
        clouds=rng.normal(0, 1, (5, 9)).astype(np.float32),
        half_width=rng.uniform(3.2, 5.4),
        asphalt=(grey, grey, grey + rng.uniform(-4, 6)),
        verge=((96, 122, 66), (142, 138, 132), (120, 112, 88))[rng.integers(3)],
        dashed=bool(rng.random() < 0.75),
        walls=tuple(_WALLS[i] for i in rng.choice(len(_WALLS), 3, replace=False)),
        building_height=rng.uniform(4, 16),
        density=rng.uniform(0.1, 1.0),
        noise=rng.uniform(1.5, 6.0),
        blur=rng.uniform(0.0, 0.7),
        quality=int(rng.integers(72, 93)),
        locations=_draw_locations(rng),
    )


def scene_of(seed: int, drive: int, frame: int) -> Scene:
    """Return the scene of one frame of a drive, both counted from 0."""
    common = drive_of(seed, drive)
    location, (first, has_site) = max(
        (number, found) for number, found in enumerate(common.locations) if found[0] <= frame
    )
    rng = np.random.default_rng((seed, drive, DemoStream.PLACE, location))
    step = 0.02 if rng.random() < 0.2 else rng.uniform(0.5, 1.6)
    lane = float(rng.choice((-0.5, 0.5, 0.5, 0.85))) * common.half_width

    site = lane if has_site else 0.0
    items = _surroundings(rng, common)
    items += _traffic(rng, common, site)
    items += _lookalikes(rng, common, site)
    if has_site:
        items += roadwork.lay_out(rng, 2 * step + rng.uniform(4.5, 10.0), lane)

    travelled = step * (frame - first)
    moved = (replace(item, z=item.z - travelled) for item in items)

    return Scene(
        common, tuple(moved), travelled, int(has_site), (seed, drive, DemoStream.FRAME, frame)
    )


def photograph(scene: Scene, *, out_of_focus: bool = False) -> Image.Image:
    """Return the scene after lens and sensor: RGB, 320 x 224.

    Out of focus, the scene cannot be labelled.
    """
    image = _draw(scene)
    rng = np.random.default_rng(scene.noise_seed)
    blur = 9.0 if out_of_focus else scene.drive.blur
    if blur > 0.25:
        image = image.filter(ImageFilter.GaussianBlur(blur))
    grain = rng.standard_normal((HEIGHT, WIDTH, 1), dtype=np.float32) * np.float32(
        scene.drive.noise
    )
    pixels = np.asarray(image, dtype=np.float32) + grain

    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def jpeg(image: Image.Image, quality: int) -> bytes:
    """Return the picture as JPEG bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _draw_locations(rng: np.random.Generator) -> tuple[tuple[int, bool], ...]:
    starts = [0]
    while starts[-1] < FRAMES_PER_DRIVE:
        starts.append(starts[-1] + int(rng.integers(1, 4)))
    has_site = rng.permutation(np.arange(len(starts)) % 2 == 0)
    return tuple((start, bool(site)) for start, site in zip(starts, has_site, strict=True))


def _surroundings(rng: np.random.Generator, drive: Drive) -> list[StreetObject]:
    """Return buildings, trees, lamps, signs and pedestrians along both sides."""
    found: list[StreetObject] = []
    edge = drive.half_width + 2.6
    for side in (-1.0, 1.0):
        z = rng.uniform(-12, 4)
        while z < 110:
            length = rng.uniform(7, 18)
            if rng.random() < drive.density:
                height = max(3.2, drive.building_height * rng.uniform(0.6, 1.5))
                wall = _jittered(rng, drive.walls[rng.integers(3)], 10)
                x = side * (edge + 4 + rng.uniform(0, 1.5))
                found.append(
                    StreetObject(
                        "building", x, z, 8.0, height, length - 0.5, wall, float(rng.random())
                    )
                )
            elif rng.random() < 0.75:
                green = _jittered(rng, (66, 96, 48), 14)
                size = rng.uniform(3.0, 6.5)
                found.append(
                    _item(
                        rng,
                        "tree",
                        side * (edge + rng.uniform(0.5, 5)),
                        z + 5,
                        size,
                        size * 1.3,
                        green,
                    )
                )

            z += length

        if rng.random() < 0.5:
            found += [
                _item(rng, "lamp_post", side * (drive.half_width + 0.4), z0, 0.1, 6.5)
                for z0 in (14.0, 38.0, 62.0)
            ]

        if rng.random() < 0.35:
            found.append(
                _item(
                    rng, "round_sign", side * (drive.half_width + 0.7), rng.uniform(9, 30), 0.7, 2.3
                )
            )

        for _ in range(rng.poisson(0.5)):
            coat = _jittered(rng, _CAR_COLOURS[rng.integers(len(_CAR_COLOURS))], 12)
            x = side * (drive.half_width + rng.uniform(0.5, 2.2))
            found.append(
                _item(rng, "person", x, rng.uniform(8, 35), 0.5, rng.uniform(1.5, 1.9), coat)
            )

    return found


def _traffic(rng: np.random.Generator, drive: Drive, site: float) -> list[StreetObject]:
    """Return oncoming traffic on the left, cars ahead and parked cars on the right.

    `site` is x of the site's lane, or 0 without a site. No vehicle is between the camera and a
    site: a label must not depend on a hidden site.
    """
    found: list[StreetObject] = []
    for lane in (-0.5, 0.5):
        for _ in range(rng.poisson(0.6)):
            z = rng.uniform(36, 80) if lane * site > 0 else rng.uniform(8, 60)
            tall = rng.random() < 0.2
            width, height, length = (
                (2.2, rng.uniform(2.3, 3.1), 7.0) if tall else (1.8, rng.uniform(1.4, 1.6), 4.3)
            )
            found.append(_car(rng, lane * drive.half_width, z, width, height, length))

    if rng.random() < 0.3:
        starts = (36.0, 42.0, 48.0) if site > 0 else (rng.uniform(6, 12), 20.0, 27.0)
        found += [_car(rng, drive.half_width - 1.0, z, 1.8, 1.5, 4.3) for z in starts]

    return found


def _car(
    rng: np.random.Generator, x: float, z: float, width: float, height: float, length: float
) -> StreetObject:
    colour = _jittered(rng, _CAR_COLOURS[rng.integers(len(_CAR_COLOURS))], 10)
    return StreetObject("vehicle", x, float(z), width, float(height), length, colour, 0.0)


def _lookalikes(rng: np.random.Generator, drive: Drive, site: float) -> list[StreetObject]:
    """Return objects with the colour or stripes of roadwork, as frequent with a site as without.

    `site` is x of the site's lane, or 0 without a site.
    """
    found: list[StreetObject] = []
    for kind, probability in _LOOKALIKES:
        side = float(rng.choice((-1.0, 1.0)))
        z, variant = float(rng.uniform(9, 32)), float(rng.random())
        colour = _jittered(rng, _ORANGES[rng.integers(len(_ORANGES))], 10)
        if rng.random() > probability:
            continue

        pavement, lane = (
            side * (drive.half_width + rng.uniform(0.8, 2.2)),
            side * drive.half_width / 2,
        )
        free = z + 30.0 if side * site > 0 else z
        found += {
            "orange_car": [StreetObject("vehicle", lane, free, 1.8, 1.5, 4.3, colour, variant)],
            "school_bus": [
                StreetObject("school_bus", lane, free, 2.4, 3.0, 9.0, (246.0, 178.0, 32.0), variant)
            ],
            "awning": [
                StreetObject(
                    "awning",
                    side * (drive.half_width + 2.6),
                    z,
                    0.0,
                    2.6,
                    6.0,
                    objects.RED,
                    variant,
                )
            ],
            "umbrella": [
                StreetObject("umbrella", pavement, z + 3.0 * i, 2.4, 2.5, 0.0, colour, variant)
                for i in range(3)
            ],
            "warning_sign": [
                StreetObject("warning_sign", pavement, z, 0.0, 2.4, 0.0, colour, variant)
            ],
            "traffic_light": [
                StreetObject("traffic_light", pavement, z, 0.0, 2.8, 0.0, colour, variant)
            ],
            "bin": [StreetObject("bin", pavement, z, 0.5, 1.0, 0.0, colour, variant)],
        }[kind]

    return found


def _draw(scene: Scene) -> Image.Image:
    drive = scene.drive
    image = _sky(drive)
    canvas = Canvas(image, drive.camera)
    _ground(canvas, drive, scene.travelled)

    for item in sorted(scene.objects, key=lambda item: -item.z):
        nearest = item.z + item.length if item.kind in ("building", "awning") else item.z
        if nearest > NEAREST + 0.5:
            _PAINTERS[item.kind](canvas, item)

    return image.reduce(SUPERSAMPLING)


def _sky(drive: Drive) -> Image.Image:
    """Return a gradient from the zenith to the haze of the horizon, with clouds."""
    width, height = WIDTH * SUPERSAMPLING, HEIGHT * SUPERSAMPLING
    rows = np.clip(np.arange(height, dtype=np.float32) / drive.camera.horizon, 0, 1)[:, None]
    gradient = np.asarray(drive.sky) * (1 - rows) + np.asarray(drive.camera.haze) * rows
    column = Image.fromarray(np.clip(gradient, 0, 255).astype(np.uint8)[:, None, :])
    sky = column.resize((width, height), Image.Resampling.NEAREST)
    cover = np.clip(drive.clouds * 70 + 40, 0, 200).astype(np.uint8)
    mask = Image.fromarray(cover).resize((width, height), Image.Resampling.BICUBIC)
    pale = tuple(round(min(255, c * 1.08)) for c in drive.camera.haze)
    sky.paste(pale, mask=mask)

    return sky


def _ground(canvas: Canvas, drive: Drive, travelled: float) -> None:
    """Draw verge, pavement, road with edge lines, and lane marks that move with the camera."""
    depths = [2.0, 3.0, 4.5, 7.0, 10.0, 15.0, 22.0, 32.0, 46.0, 66.0, 95.0, _FARTHEST]

    def strip(left: float, right: float, colour: Colour) -> None:
        points = [(left, 0.0, z) for z in depths] + [(right, 0.0, z) for z in reversed(depths)]
        canvas.polygon(points, colour)

    half = drive.half_width
    strip(-160, 160, drive.verge)
    strip(-half - 2.8, half + 2.8, (150, 146, 140))
    strip(-half, half, drive.asphalt)
    for side in (-1, 1):
        strip(side * half - 0.08, side * half + 0.08, (186, 184, 178))
    if not drive.dashed:
        strip(-0.09, 0.09, WHITE)
        return

    z = 8.0 - travelled % 8.0
    while z < 90:
        near, far = max(z, 2.0), z + 3.5
        canvas.polygon([(-0.09, 0, near), (0.09, 0, near), (0.09, 0, far), (-0.09, 0, far)], WHITE)
        z += 8.0


def _item(
    rng: np.random.Generator,
    kind: str,
    x: float,
    z: float,
    width: float,
    height: float,
    colour: Colour = objects.GREY,
) -> StreetObject:
    return StreetObject(
        kind, float(x), float(z), float(width), float(height), 0.0, colour, float(rng.random())
    )


def _scaled(colour: Colour, factor: float) -> Colour:
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


def _jittered(rng: np.random.Generator, colour: Colour, sigma: float) -> Colour:
    noise = rng.normal(0, sigma, 3)
    return colour[0] + noise[0], colour[1] + noise[1], colour[2] + noise[2]

"""The generated data set and the faults that are planted in it.

A folder with images/ and labels.csv (path, label, group, timestamp, recording_day): drives are the
groups; a few images occur twice, a few are labelled -1 (exclude), less than one percent of the
files are broken.
"""

import datetime
import io
import multiprocessing
import signal
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from components.shared.contracts.errors import ConfigError
from components.shared.contracts.machine import n_usable_cores
from components.shared.contracts.processes import end_with_parent
from components.shared.contracts.random_streams import DemoStream
from components.shared.contracts.tables import write_table
from pipelines.demo import N_IMAGES
from pipelines.demo.folder import publish
from pipelines.demo.scenes import DAYS, FRAMES_PER_DRIVE, drive_of, jpeg, photograph, scene_of

COLUMNS = ("path", "label", "group", "timestamp", "recording_day")
BROKEN = ("truncated", "empty", "text")
FAULTS = (*BROKEN, "png")  # a PNG under a JPEG's name is read: its content decides
_DRIVES_PER_WORKER = 10  # fewer take less time than the start of a process


@dataclass(frozen=True)
class PlannedImage:
    """One line of labels.csv and the content of its file.

    Attributes:
        drive: Number of the drive, from 0.
        frame: Number of the frame in the drive, from 0.
        label: 1 roadwork, 0 none, -1 exclude.
        content: "frame"; "duplicate" or "conflict" (the bytes of the source's file, with its label
            or the opposite one); "reencoded" (the source's picture saved again); "unclear" (out of
            focus, label -1); or one of FAULTS.
        source: Drive and frame of the picture.
    """

    drive: int
    frame: int
    label: int
    content: str
    source: tuple[int, int]

    @property
    def path(self) -> str:
        """Path relative to the data folder, with slashes."""
        return f"images/drive_{self.drive:03d}/{self.frame:04d}.jpg"

    def fields(self) -> tuple[str, str, str, str, str]:
        """Return the line's fields in the order of COLUMNS."""
        day, run = self.drive % DAYS, self.drive // DAYS
        start = datetime.datetime(
            2025, 3, 3 + day, 6, 10, tzinfo=datetime.UTC
        ) + datetime.timedelta(minutes=47 * run)
        moment = start + datetime.timedelta(seconds=4 * self.frame)

        return (
            self.path,
            str(self.label),
            f"drive_{self.drive:03d}",
            moment.isoformat(),
            f"day{day + 1}",
        )


def plan(n_images: int, seed: int) -> list[PlannedImage]:
    """Return all images, ordered by drive and frame.

    Raises:
        ConfigError: `n_images` is less than two drives.
    """
    if n_images < 2 * FRAMES_PER_DRIVE:
        raise ConfigError(f"n_images={n_images} is too small, give at least {2 * FRAMES_PER_DRIVE}")

    rows = [_frame_row(seed, *divmod(i, FRAMES_PER_DRIVE)) for i in range(n_images)]
    rng = np.random.default_rng((seed, DemoStream.PLAN))
    used: set[int] = set()
    drives = rng.permutation(n_images // FRAMES_PER_DRIVE)
    n_pairs = len(drives) // 2
    copies = ["duplicate"] * max(1, n_images // 200) + ["conflict"] * max(1, n_images // 800)
    copies += ["reencoded"] * max(1, n_images // 400)
    # Copies lie between pairs of drives, so that duplicates unite few groups.
    for k, content in enumerate(copies):
        pair, frame = k % n_pairs, (3 * (k // n_pairs) + k % n_pairs) % FRAMES_PER_DRIVE
        target, source = (
            int(drive) * FRAMES_PER_DRIVE + frame for drive in drives[2 * pair : 2 * pair + 2]
        )
        label = 1 - rows[source].label if content == "conflict" else rows[source].label
        rows[target] = replace(
            rows[target], content=content, label=label, source=rows[source].source
        )
        used |= {target, source}

    free = [int(i) for i in rng.permutation(n_images) if int(i) not in used]
    faulty = [FAULTS[k % len(FAULTS)] for k in range(n_images // 200)]
    for i, content in zip(free, faulty + ["unclear"] * (n_images // 100), strict=False):
        rows[i] = replace(
            rows[i], content=content, label=-1 if content == "unclear" else rows[i].label
        )

    return rows


def write_demo_data(folder: Path, *, n_images: int = N_IMAGES, seed: int = 0) -> None:
    """Write the data set; equal arguments give equal bytes, a complete folder stays as it is.

    Takes about 6 ms per image and core.

    Args:
        folder: Folder to write.
        n_images: Number of images.
        seed: Seed of scenes and faults.

    Raises:
        ConfigError: `n_images` is less than 20.
        DataError: `folder` holds something else.
    """
    rows = plan(n_images, seed)

    def write(directory: Path) -> None:
        write_table(directory / "labels.csv", COLUMNS, (row.fields() for row in rows))
        _write_images(directory, rows, seed)

    publish(folder, {"n_images": n_images, "seed": seed}, write)


def _frame_row(seed: int, drive: int, frame: int) -> PlannedImage:
    has_site = [site for first, site in drive_of(seed, drive).locations if first <= frame][-1]
    return PlannedImage(drive, frame, int(has_site), "frame", (drive, frame))


def _write_images(directory: Path, rows: list[PlannedImage], seed: int) -> None:
    parts = [rows[i : i + FRAMES_PER_DRIVE] for i in range(0, len(rows), FRAMES_PER_DRIVE)]
    workers = min(n_usable_cores(), len(parts) // _DRIVES_PER_WORKER)
    arguments = ([directory] * len(parts), parts, [seed] * len(parts))
    if workers < 2:
        _exhaust(map(_write_drive, *arguments))
        return

    # spawn: forking a process that may run torch's threads can deadlock
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker) as pool:
        _exhaust(pool.map(_write_drive, *arguments))


def _begin_worker() -> None:
    """Leave Ctrl-C to the process that waits for this one, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def _exhaust(results: Iterable[None]) -> None:
    for _ in results:
        pass


def _write_drive(directory: Path, rows: list[PlannedImage], seed: int) -> None:
    (directory / rows[0].path).parent.mkdir(parents=True)
    for row in rows:
        (directory / row.path).write_bytes(file_bytes(row, seed))


def file_bytes(row: PlannedImage, seed: int) -> bytes:
    """Return the content of the image's file."""
    if row.content == "empty":
        return b""
    if row.content == "text":
        return b"<html><body>404 Not Found</body></html>\n"

    scene = scene_of(seed, *row.source)
    image = photograph(scene, out_of_focus=row.content == "unclear")

    if row.content == "png":
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return buffer.getvalue()

    data = jpeg(
        image, scene.drive.quality - 15 if row.content == "reencoded" else scene.drive.quality
    )

    return data[: len(data) * 3 // 5] if row.content == "truncated" else data

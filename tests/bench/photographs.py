"""JPEG files for the image benchmarks: generated street scenes of a dash camera or a telephone."""

import contextlib
import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from components.ingest_dataset.config import IngestConfig
from components.ingest_dataset.step import run as ingest
from components.shared.data.dataset import Dataset
from pipelines.demo.scenes import FRAMES_PER_DRIVE, photograph, scene_of

SIZE = (1280, 720)
LARGE = (4032, 3024)  # 12 megapixels


@contextmanager
def photographs(count: int, size: tuple[int, int] = SIZE) -> Iterator[list[Path]]:
    """Paths of `count` JPEG files, in the folders `0` and `1` (the label), removed at the end."""
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number in range(count):
            scene = scene_of(0, *divmod(number, FRAMES_PER_DRIVE))
            file = Path(folder) / str(number % 2) / f"{number:05d}.jpg"
            file.parent.mkdir(exist_ok=True)
            buffer = io.BytesIO()
            photograph(scene).resize(size, Image.Resampling.BICUBIC).save(
                buffer, "JPEG", quality=88
            )
            file.write_bytes(buffer.getvalue())
            files.append(file)
        yield sorted(files)


def ingested(files: list[Path], path: Path, image_size: int) -> Dataset:
    """The dataset artifact of these files, written to `path`."""
    root = files[0].parent.parent
    rows = [f"{file.relative_to(root)},{file.parent.name}" for file in files]
    (root / "labels.csv").write_text("\n".join(["path,label", *rows]) + "\n", encoding="utf-8")
    config = IngestConfig(
        data=str(root), label_map={"0": "None", "1": "Roadwork"}, image_size=image_size
    )
    with contextlib.redirect_stdout(None):
        ingest(config, dataset=path)
    return Dataset.open(path)

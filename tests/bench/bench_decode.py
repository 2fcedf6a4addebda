"""Speed of decoding and resizing JPEG files against Pillow's usual use and Hugging Face datasets.

Photographs of 1280 x 720: ours uses threads (Pillow works without the interpreter lock) and checks
each file besides; the peer is `Image.open(file).convert("RGB").resize((224, 224), BICUBIC)`, one
file after the other. Photographs of 12 megapixels at 224, 448 and 672: one thread each, so that the
numbers are those of a core; the second peer, the `Image` feature of datasets with the same resize,
is measured where datasets is installed.
"""

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from components.shared.data.decode import decode_resized
from components.shared.data.parallel import ordered_map
from tests.bench.measure import Result, interleaved
from tests.bench.photographs import LARGE, photographs

_N_FILES, _SIZE = 128, 224
_N_LARGE, _LARGE_SIZES = 4, (224, 448, 672)

Pixels = npt.NDArray[np.uint8]


def run() -> Iterator[Result]:
    """Yield the results; the pixels must agree as closely as `decode` promises."""
    with photographs(_N_FILES) as files:
        name = f"decode and resize, {_N_FILES} JPEG of 1280 x 720"
        yield _compared(
            name, "Pillow", files, lambda: _threaded(files), lambda: _pillow(files, _SIZE), goal=2
        )

    with photographs(_N_LARGE, size=LARGE) as files:
        for size in _LARGE_SIZES:
            yield from _large(files, size)


def _large(files: list[Path], size: int) -> Iterator[Result]:
    """Yield the results of one thread on large photographs, squeezed to `size`."""
    peers: dict[str, Callable[[], Pixels]] = {"Pillow": lambda: _pillow(files, size)}
    if importlib.util.find_spec("datasets"):
        peers["datasets"] = lambda: _datasets(files, size)

    name = f"decode and resize on one core, JPEG of {LARGE[0]} x {LARGE[1]} to {size}"
    for peer, call in peers.items():
        yield _compared(name, peer, files, lambda: _one_by_one(files, size), call, goal=1.8)


def _compared(
    name: str,
    peer: str,
    files: list[Path],
    ours: Callable[[], Pixels],
    theirs: Callable[[], Pixels],
    *,
    goal: float,
) -> Result:
    """Measure both, after their pixels are compared."""
    difference = np.abs(ours().astype(int) - theirs().astype(int))
    assert difference.max() <= 8, difference.max()
    seconds = interleaved(ours, theirs, rounds=7)

    note = (
        f"{len(files) / seconds[0]:.1f} images/s against {len(files) / seconds[1]:.1f}; difference"
        f" {difference.mean():.2f} of 255 on average, {difference.max()} at most"
    )
    return Result(name, peer, *seconds, goal=goal, note=note)


def _threaded(files: list[Path]) -> Pixels:
    return np.stack(list(ordered_map(lambda f: decode_resized(f.read_bytes(), size=_SIZE), files)))


def _one_by_one(files: list[Path], size: int) -> Pixels:
    return np.stack([decode_resized(file.read_bytes(), size=size) for file in files])


def _pillow(files: list[Path], size: int) -> Pixels:
    images = [
        Image.open(f).convert("RGB").resize((size, size), Image.Resampling.BICUBIC) for f in files
    ]
    return np.stack([np.asarray(image) for image in images])


def _datasets(files: list[Path], size: int) -> Pixels:
    """Return the pixels (n, S, S, 3) of these files, decoded by `datasets.Image`."""
    datasets = importlib.import_module("datasets")  # without types
    features = datasets.Features({"image": datasets.Image()})
    data = datasets.Dataset.from_dict({"image": [str(file) for file in files]}, features=features)
    images = (
        row["image"].convert("RGB").resize((size, size), Image.Resampling.BICUBIC) for row in data
    )
    return np.stack([np.asarray(image) for image in images])

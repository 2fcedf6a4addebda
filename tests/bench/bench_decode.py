"""Speed of decoding and resizing 1280 x 720 JPEG files against Pillow's usual use.

The peer: `Image.open(file).convert("RGB").resize((224, 224), BICUBIC)`, one file after the other.
Ours uses threads (Pillow works without the interpreter lock) and checks each file besides.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from components.ingest_dataset.parallel import ordered_map
from components.shared.data.decode import decode_resized
from tests.bench.measure import Result, interleaved
from tests.bench.photographs import photographs

_N_FILES, _SIZE = 128, 224


def run() -> list[Result]:
    """One result; the pixels must agree as closely as the reduced decoding of `decode` promises."""
    with photographs(_N_FILES) as files:
        difference = np.abs(_ours(files).astype(int) - _peer(files).astype(int))
        assert difference.max() <= 8, difference.max()
        seconds = interleaved(lambda: _ours(files), lambda: _peer(files), rounds=7)
    note = f"largest difference {difference.max()} of 255"
    return [
        Result(
            f"decode and resize, {_N_FILES} JPEG of 1280 x 720",
            "Pillow",
            *seconds,
            goal=2,
            note=note,
        )
    ]


def _ours(files: list[Path]) -> npt.NDArray[np.uint8]:
    return np.stack(list(ordered_map(lambda f: decode_resized(f.read_bytes(), size=_SIZE), files)))


def _peer(files: list[Path]) -> npt.NDArray[np.uint8]:
    images = [
        Image.open(f).convert("RGB").resize((_SIZE, _SIZE), Image.Resampling.BICUBIC) for f in files
    ]
    return np.stack([np.asarray(image) for image in images])

"""Broken images of ten kinds go through ingest: no crash, none accepted, each named with a reason.

Of each kind 50 by default, 500 by `make test-faults`, no two alike.
"""

import csv
import io
import os
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from components.ingest_dataset.config import IngestConfig
from components.ingest_dataset.step import run
from components.shared.data.dataset import Dataset

COUNT = 500 if os.environ.get("KILLS") else 50
_N_SOUND = 20


def _encoded(seed: int, kind: str) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=kind)
    return buffer.getvalue()


def _cut(data: bytes, low: float, high: float, chance: random.Random) -> bytes:
    return data[: int(len(data) * chance.uniform(low, high))]


def _chunk_overwritten(data: bytes, chance: random.Random) -> bytes:
    """A PNG whose pixel data do not match their checksum."""
    start = data.index(b"IDAT") + 4 + chance.randrange(20, 200)
    return (
        data[:start] + bytes(255 - byte for byte in data[start : start + 40]) + data[start + 40 :]
    )


def _bomb(chance: random.Random) -> bytes:
    """A PNG of a few bytes that announces 400 megapixels and more."""
    header = struct.pack(">IIBBBBB", 20_000 + chance.randrange(10_000), 20_000, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100))
    )


KINDS: dict[str, tuple[str, Callable[[int, random.Random], bytes]]] = {
    "empty": ("jpg", lambda seed, chance: b""),
    "text": ("jpg", lambda seed, chance: f"not an image {seed}".encode()),
    "page": ("png", lambda seed, chance: f"<html><body>{seed}</body></html>".encode()),
    "header": ("jpg", lambda seed, chance: _encoded(seed, "JPEG")[: chance.randrange(3, 120)]),
    "half": ("jpg", lambda seed, chance: _cut(_encoded(seed, "JPEG"), 0.4, 0.9, chance)),
    "png": ("png", lambda seed, chance: _cut(_encoded(seed, "PNG"), 0.05, 0.95, chance)),
    "overwritten": ("png", lambda seed, chance: _chunk_overwritten(_encoded(seed, "PNG"), chance)),
    "noise": (
        "jpg",
        lambda seed, chance: b"\xff\xd8\xff\xe0" + chance.randbytes(chance.randrange(10, 3000)),
    ),
    "bomb": ("png", lambda seed, chance: _bomb(chance)),
}


def test_no_broken_image_is_accepted_and_each_is_named(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    broken, sound = {}, []
    for kind, (suffix, make) in KINDS.items():
        for index in range(COUNT):
            name = f"{kind}{index}.{suffix}"
            (source / name).write_bytes(make(index, random.Random(f"{kind}{index}")))
            broken[name] = kind
    for index in range(_N_SOUND):
        sound.append(f"sound{index}.jpg")
        (source / sound[-1]).write_bytes(_encoded(10_000 + index, "JPEG"))
    rows = [(name, index % 2) for index, name in enumerate(sorted([*broken, *sound]))]
    with (source / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "label"), *rows])
    run(
        IngestConfig(data=str(source), image_size=28, max_reject_fraction=1.0),
        dataset=tmp_path / "dataset",
    )
    with (tmp_path / "dataset/rejects.csv").open(newline="") as stream:
        rejected = {row["path"]: row["reason"] for row in csv.DictReader(stream)}
    assert sorted(rejected) == sorted(broken)
    assert all(rejected.values())
    assert {sample.path for sample in Dataset.open(tmp_path / "dataset").samples} == set(sound)

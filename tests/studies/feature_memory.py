"""Peak memory of extracting and reading the features of a large data set: python -m
tests.studies.feature_memory [N] [--views V] [--width W]

Shards are computed, written, linked into an artifact, verified and read by the library, with real
files in a temporary folder. The forward pass is fake: random numbers of the right shape stand for
the backbone's output, so that pixels, activations and weights are not part of the measurement.
Prints the peak of resident memory, and of it what is not a mapped file: the kernel takes pages of
files back when others need memory.
"""

import argparse
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from components.shared.contracts.options import LaunchConfig
from components.shared.data.features import FeatureRecipe
from components.shared.training.checkpoint.parts import Parts
from components.shared.training.loop.distributed import World
from components.shared.training.session import features as module
from components.shared.training.session.features import (
    computed_features,
    export_features,
    in_blocks,
)

_GIB = 2**30
_N_STEPS, _BATCH = 500, 256
_FIELDS = ("VmRSS", "RssAnon")


class _Peak:
    """Highest resident memory in bytes, in all and without mapped files, asked every 20 ms."""

    def __init__(self) -> None:
        self.bytes = dict.fromkeys(_FIELDS, 0)
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            for line in Path("/proc/self/status").read_text().splitlines():
                name, _, value = line.partition(":")
                if name in self.bytes:
                    self.bytes[name] = max(self.bytes[name], 1024 * int(value.split()[0]))
            time.sleep(0.02)


class _Split:
    """Ids of N images, which have no pixels."""

    def __init__(self, count: int) -> None:
        self.sample_ids = [f"{number:016x}" for number in range(count)]

    def __len__(self) -> int:
        return len(self.sample_ids)


def measure(count: int, views: int, width: int) -> dict[str, int]:
    """Return the peaks by field of /proc/self/status, in bytes."""

    def fake(
        _classifier: Any, _part: Any, rows: np.ndarray, _world: World, **_options: Any
    ) -> torch.Tensor:
        return torch.rand(len(rows), 1, views, width)

    module.augmented_features = fake  # type: ignore[assignment]
    head = SimpleNamespace(linear=SimpleNamespace(in_features=width))
    classifier: Any = SimpleNamespace(
        spec=SimpleNamespace(views=SimpleNamespace(count=views)), head=head
    )
    train, select = _Split(count), _Split(count // 7)
    world = World(0, 1, torch.device("cpu"))
    peak = _Peak()

    with tempfile.TemporaryDirectory(prefix="streetvision-features-") as folder:
        parts = Parts(Path(folder), LaunchConfig(), step="study")
        recipe = FeatureRecipe(1, "none", 0, "fp32")
        given: Any = (train, select)
        found = computed_features(classifier, *given, recipe, world, parts)
        export_features(Path(folder) / "TRAIN", "TRAIN", found.train, parts)

        rng = np.random.default_rng(0)
        for _ in range(_N_STEPS):  # of training
            found.train.take(rng.integers(count, size=_BATCH), np.zeros(_BATCH, dtype=np.int64))
        in_blocks(lambda features: features.mean(dim=(1, 2)), found.select, world)  # an epoch's end

    return peak.bytes


def main() -> None:
    """Print the peaks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=100_000)
    parser.add_argument("--views", type=int, default=10)
    parser.add_argument("--width", type=int, default=2048)
    given = parser.parse_args()
    started = time.monotonic()
    peaks = measure(given.count, given.views, given.width)
    stored = 2 * given.count * given.views * given.width
    print(
        f"{given.count:,} images x {given.views} views x {given.width}: {stored / _GIB:.1f} GiB of"
        f" TRAIN; peak {peaks['VmRSS'] / _GIB:.2f} GiB, {peaks['RssAnon'] / _GIB:.2f} GiB without"
        f" mapped files; {time.monotonic() - started:.0f} s"
    )


if __name__ == "__main__":
    main()

"""Cost of each step that reads the whole data set, as the number of images grows.

`python -m tests.studies.scaling FOLDER [--counts 1000,10000,100000]`.

Synthetic PNG of 32 pixels, ten in a group; every twentieth is nearly a copy of the one before. Each
step runs in a process of its own, in FOLDER, whose images are kept. Measured are, without the start
of Python:

* seconds of one core, which other processes on the machine change little;
* peak of the resident memory;
* most bytes on disk at a time, below the step's outputs;
* bytes hashed, and fetched (the size of the input artifacts).

The exponent is that of the seconds between the two largest counts; with it, and with the growth of
the other columns between these, a line carries each step to a million images on paper.
"""

import argparse
import csv
import json
import math
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from components.ingest_dataset.config import IngestConfig
from components.ingest_dataset.step import run as ingest_dataset
from components.shared.data.dataset import Dataset
from components.shared.data.splits import read_splits
from components.split_dataset.config import SplitConfig
from components.split_dataset.step import run as split_dataset
from tests.studies.bytes_per_step import read_step

_COUNTING = Path(__file__).parent / "counting"
_SIZE = 32  # pixels
_BATCH = 256  # images read at a time
_MILLION = 1_000_000
STEPS = ("ingest", "split", "open", "read")


@dataclass(frozen=True)
class Cost:
    """What a step took.

    Attributes:
        count: number of images.
        seconds: of one core.
        memory: peak, in bytes.
        disk: most bytes of the outputs at a time.
        hashed: bytes given to SHA-256.
        fetched: bytes of the input artifacts.
    """

    count: int
    seconds: float
    memory: float
    disk: float
    hashed: float
    fetched: float


def main() -> None:
    """Measure every step at every count, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.studies.scaling")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--counts", default="1000,10000,100000")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)  # in a process of its own
    parsed = parser.parse_args()
    if parsed.step:
        print(json.dumps(_measured(parsed.step, parsed.folder)))
        return

    costs: dict[str, list[Cost]] = {step: [] for step in STEPS}
    for count in sorted(int(text) for text in parsed.counts.split(",")):
        root = parsed.folder.resolve() / str(count)
        write_images(root / "source", count)
        for step in STEPS:
            costs[step].append(_in_own_process(step, root, count))
            print(f"{step} {costs[step][-1]}", file=sys.stderr, flush=True)

    for line in table(costs):
        print(line)


def write_images(folder: Path, count: int) -> None:
    """Write the images and their table; nothing where they are there."""
    if (folder / "labels.csv").exists():
        return

    rng = np.random.default_rng(count)
    rows, image = [], np.zeros((_SIZE, _SIZE, 3), dtype=np.uint8)
    for number in range(count):
        if number % 20 == 19:
            image = np.where(image < 250, image + 1, image).astype(np.uint8)
        else:
            image = rng.integers(0, 256, (_SIZE, _SIZE, 3), dtype=np.uint8)
        name = f"{number // 1000:04d}/{number:07d}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / name, compress_level=0)
        rows.append((name, "ab"[number // 10 % 2], f"group{number // 10}"))

    with (folder / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "label", "group"), *rows])


def _in_own_process(step: str, root: Path, count: int) -> Cost:
    log = root / "bytes"
    log.mkdir(exist_ok=True)
    (log / f"{step}.jsonl").unlink(missing_ok=True)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(_COUNTING), str(Path.cwd())]),
        "BYTES_LOG": str(log),
        "STREETVISION_STATUS": str(root / step / "status.json"),
        "STREETVISION_LINEAGES": str(root / "lineages"),
    }
    command = [sys.executable, "-m", "tests.studies.scaling", str(root), "--step", step]
    finished = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    measured = json.loads(finished.stdout.splitlines()[-1])
    noted = log / f"{step}.jsonl"
    return Cost(count, hashed=read_step(noted)["hashed"] if noted.exists() else 0, **measured)


def _measured(step: str, root: Path) -> dict[str, float]:
    """Run a step in this process; return what it took."""
    work, inputs = _steps(root)[step]
    fetched = sum(_size(path) for path in inputs)
    outputs = root / step
    with _watched(outputs) as most:
        before = time.process_time()
        work()
        seconds = time.process_time() - before
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds, "memory": memory, "disk": most.value, "fetched": fetched}


def _steps(root: Path) -> dict[str, tuple[Callable[[], object], tuple[Path, ...]]]:
    """Return what each step does, and its input artifacts."""
    dataset, splits = root / "ingest/dataset", root / "split/splits"
    ingest = IngestConfig(data=str(root / "source"), image_size=_SIZE)
    return {
        "ingest": (lambda: ingest_dataset(ingest, dataset=dataset), ()),
        "split": (
            lambda: split_dataset(SplitConfig(), dataset=dataset, splits=splits),
            (dataset,),
        ),
        "open": (lambda: (Dataset.open(dataset), read_splits(splits)), (dataset, splits)),
        "read": (lambda: _read_all(dataset), (dataset,)),
    }


def _read_all(dataset: Path) -> None:
    """Read every image once, in a random order, as an epoch does."""
    data = Dataset.open(dataset)
    order = np.random.default_rng(0).permutation(len(data.samples))
    for start in range(0, len(order), _BATCH):
        data.images(order[start : start + _BATCH])


class _watched:  # noqa: N801 - used as a function
    """Follows the size of a folder while the context lasts; `value` is the largest seen."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.value = folder, 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "_watched":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.value = max(self.value, _size(self.folder))

    def _watch(self) -> None:
        while not self._ended.wait(0.2):
            self.value = max(self.value, _size(self.folder))


def _size(folder: Path) -> int:
    """Bytes of all files below a folder; files that vanish meanwhile are left out."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(parent) / name).stat().st_size
            except FileNotFoundError:
                continue
    return total


def table(costs: dict[str, list[Cost]]) -> Iterator[str]:
    """Yield a Markdown table: a row for each step and count, and one for a million images."""
    columns = ("images", "core seconds", "peak memory MB", "disk MB", "hashed MB", "fetched MB")
    yield "| step | " + " | ".join(columns) + " | exponent |"
    yield "|---|" + "---|" * (len(columns) + 1)
    for step, rows in costs.items():
        for cost in rows:
            yield _row(step, cost, "")
        if len(rows) > 1:
            exponent = exponent_of(*rows[-2:])
            yield _row(step, carried(*rows[-2:]), f"{exponent:.2f}")


def exponent_of(smaller: Cost, larger: Cost) -> float:
    """Return the exponent of the seconds between two counts."""
    return math.log(larger.seconds / smaller.seconds) / math.log(larger.count / smaller.count)


def carried(smaller: Cost, larger: Cost) -> Cost:
    """Return the cost of a million images, on paper.

    Seconds by the exponent, at least 1; all else along the line through both counts.
    """
    factor = _MILLION / larger.count

    def along(name: str) -> float:
        first, second = getattr(smaller, name), getattr(larger, name)
        slope = (second - first) / (larger.count - smaller.count)
        return float(second + slope * (_MILLION - larger.count))

    return Cost(
        count=_MILLION,
        seconds=larger.seconds * factor ** max(1.0, exponent_of(smaller, larger)),
        **{name: along(name) for name in ("memory", "disk", "hashed", "fetched")},
    )


def _row(step: str, cost: Cost, exponent: str) -> str:
    name = f"{step}, on paper" if exponent else step
    sizes = [f"{v / 1e6:,.0f}" for v in (cost.memory, cost.disk, cost.hashed, cost.fetched)]
    cells = [f"{cost.count:,}", f"{cost.seconds:,.2f}", *sizes, exponent]
    return f"| {name} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()

"""A full disk at every point of the steps that write maps: one line, exit code 1, nothing left.

The disk is a small tmpfs where one can be mounted. Elsewhere a limit on the size of files stands
for it, which fails the same calls, but for maps.
"""

import json
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.shared.contracts.errors import TRANSIENT_EXIT_CODE
from pipelines.sources import ROOT
from tests.small_disk import small_disk

N_IMAGES, SIZE = 24, 128
_BYTES = N_IMAGES * SIZE * SIZE * 3  # 1.2 MB


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rows = ["path,label"]
    for number in range(N_IMAGES):
        pixels = np.random.default_rng(number).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.append(f"{number}.png,{number % 2}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def run_step(
    phase: str, document: dict[str, Any], folder: Path, limit: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    job = folder / f"{phase}.json"
    job.write_text(json.dumps(document))
    return subprocess.run(
        [sys.executable, "-m", f"components.{phase}.step", str(job)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=limit,
        check=False,
    )


def ingest(
    data: Path, out: Path, tmp_path: Path, limit: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    config = {"data": str(data), "image_size": SIZE, "near_duplicate_distance": 0}
    document = {"config": config, "paths": {"dataset": str(out / "dataset")}}
    return run_step("ingest_dataset", document, tmp_path, limit)


def assert_one_line(finished: subprocess.CompletedProcess[str], out: Path) -> None:
    lines = [line for line in finished.stderr.splitlines() if line and "images:" not in line]
    assert finished.returncode == TRANSIENT_EXIT_CODE, finished.stderr
    assert len(lines) == 1, finished.stderr
    assert lines[0].startswith("error: ")
    assert sorted(file.name for file in out.iterdir()) == ["status.json"]
    status = json.loads((out / "status.json").read_text())
    assert (status["state"], status["permanent"]) == ("failed", False)


# Of the pixels, which are written twice: in the first copy, between, and in the mapped second one,
# which ended with a bus error; then in what is written last.
@pytest.mark.parametrize("fraction", [0.3, 0.9, 1.1, 1.5, 1.95])
def test_ingest_on_a_full_disk(data: Path, tmp_path: Path, fraction: float) -> None:
    with small_disk(int(fraction * _BYTES)) as disk:
        finished = ingest(data, disk, tmp_path)
        assert_one_line(finished, disk)
        assert "No space left on device" in finished.stderr


def test_split_on_a_full_disk(data: Path, tmp_path: Path) -> None:
    """Pixels of TRAIN are a map too."""
    (tmp_path / "whole").mkdir()
    assert ingest(data, tmp_path / "whole", tmp_path).returncode == 0
    with small_disk(_BYTES // 4) as disk:
        config = {"min_per_class": 1, "min_groups_per_class": 1}
        paths = {
            "dataset": str(tmp_path / "whole/dataset"),
            "splits": str(disk / "splits"),
            "train_images": str(disk / "train_images"),
        }
        finished = run_step("split_dataset", {"config": config, "paths": paths}, tmp_path)
        assert "No space left on device" in finished.stderr, finished.stderr
        assert finished.returncode == TRANSIENT_EXIT_CODE
        left = {file.name for file in disk.iterdir()}
        assert left <= {"status.json", "splits"}


def test_ingest_under_a_limit_on_the_size_of_files(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (_BYTES // 2, _BYTES // 2))

    finished = ingest(data, out, tmp_path, limit)
    assert_one_line(finished, out)
    assert "File too large" in finished.stderr

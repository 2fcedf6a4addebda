"""The counts of the studies on data economy, and what they show: no pod hashes its inputs twice."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.shared.contracts.artifacts import sha256_file
from tests.components.conftest import write_backbone, write_source
from tests.studies.bytes_per_step import COLUMNS, read_step, table
from tests.studies.scaling import Cost, carried, exponent_of
from tests.studies.scaling import table as scaling_table

COUNTING = Path(__file__).parent / "counting"
SMALL = 200_000  # bytes of tables and documents
CODE = 3_000_000  # bytes: the sources, whose digest a manifest has, twice
_PROGRAM = """
import hashlib, sys
from pathlib import Path
from components.shared.contracts.artifacts import _in_threads, _sha256_unless
files = [Path(name) for name in sys.argv[1:]]
print(*_in_threads(_sha256_unless, files))
with files[0].open("rb") as stream:
    print(hashlib.file_digest(stream, "sha256").hexdigest())
print(hashlib.sha256(files[0].read_bytes()).hexdigest())
"""


def test_hashed_bytes_are_counted_in_threads_too_and_the_digests_stay(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a", "b", "c")]
    for number, file in enumerate(files):
        file.write_bytes(bytes([number]) * 1_000_000)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(COUNTING), str(Path.cwd())]),
        "BYTES_LOG": str(tmp_path),
        "STREETVISION_STATUS": str(tmp_path / "my-step/status.json"),
    }
    command = [sys.executable, "-c", _PROGRAM, *map(str, files)]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    digests = [sha256_file(file) for file in files]
    assert finished.stdout.split() == [*digests, digests[0], digests[0]]
    assert digests[0] == hashlib.sha256(files[0].read_bytes()).hexdigest()
    assert read_step(tmp_path / "my-step.jsonl")["hashed"] == 5_000_000


def test_the_table_adds_all_processes_of_a_step(tmp_path: Path) -> None:
    lines: list[dict[str, object]] = [
        {"hashed": 2_000_000},
        {"hashed": 3_000_000},
        {
            "rchar": 7_000_000,
            "write_bytes": 1_000_000,
            "fetched": {"dataset": 4_000_000, "splits": 500_000},
            "stored": {"checkpoint": 250_000},
        },
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert table(tmp_path)[2:] == [
        "| train | 4.5 | 5.0 | 7.0 | 1.0 | 0.2 |",
        "| all | 4.5 | 5.0 | 7.0 | 1.0 | 0.2 |",
    ]
    assert COLUMNS == ("fetched", "hashed", "read", "written", "stored")


def test_a_million_images_on_paper_follow_the_exponent_and_the_line() -> None:
    smaller, larger = Cost(100, 1.0, 50.0, 10.0, 1.0, 0.0), Cost(1000, 20.0, 140.0, 100.0, 10.0, 0)
    assert exponent_of(smaller, larger) == pytest.approx(1.30103)
    million = carried(smaller, larger)
    assert million.seconds == pytest.approx(20 * 1000**1.30103, rel=1e-4)
    assert million.memory == pytest.approx(40 + 0.1 * 1e6)
    assert million.disk == pytest.approx(0.1 * 1e6)
    assert list(scaling_table({"split": [smaller, larger]}))[-1].endswith(" | 1.30 |")


@pytest.mark.slow
def test_no_step_of_a_run_hashes_its_inputs_twice_and_two_need_no_data_set(tmp_path: Path) -> None:
    write_source(tmp_path / "source", 160)
    write_backbone(tmp_path / "backbone")
    values = {
        "data": tmp_path / "source",
        "backbone": tmp_path / "backbone",
        "image_size": 112,
        "min_per_class": 2,
        "epochs": 1,
        "global_batch_size": 16,
        "n_processes": 2,
        "n_bootstrap": 100,
    }
    log = tmp_path / "log"
    log.mkdir()
    command = [sys.executable, "-m", "pipelines", "run", "--output", str(tmp_path / "runs")]
    command += ["--formats", "transformers"]  # further ones are compared on images of the data set
    command += [word for name, value in values.items() for word in ("--param", f"{name}={value}")]
    path = os.pathsep.join([str(COUNTING), str(Path.cwd())])
    environment = os.environ | {"PYTHONPATH": path, "BYTES_LOG": str(log), "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]

    steps = {file.stem: read_step(file) for file in log.glob("*-*.jsonl")}
    data_set = steps["ingest-dataset"]["stored"]
    assert data_set > 2 * CODE - 1_000_000
    assert steps["split-dataset"]["stored"] < SMALL
    for name in ("train-baseline", "train-gate", "predict-logits", "split-dataset"):
        step = steps[name]
        assert step["fetched"] >= data_set, name
        # Once what it fetched, and once what it wrote: its two ranks hash nothing.
        assert step["hashed"] < step["fetched"] + step["stored"] + CODE, name
    for name in ("evaluate", "export-bundle"):
        fetched = _fetched(log / f"{name}.jsonl")
        assert "dataset" not in fetched, name
        assert fetched["val_test_images"] < data_set / 4, name


def _fetched(file: Path) -> dict[str, int]:
    """Return the size of each input artifact of a step, by name."""
    (noted,) = [
        document["fetched"]
        for document in map(json.loads, file.read_text().splitlines())
        if "fetched" in document
    ]
    return dict(noted)

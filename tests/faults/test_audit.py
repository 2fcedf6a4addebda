"""A whole local run unpickles nothing from a file: every process of it is watched."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.components.conftest import write_backbone, write_source

pytestmark = pytest.mark.slow

AUDIT = Path(__file__).parent / "audit"
PARAMETERS = {
    "image_size": 28,
    "min_per_class": 2,
    "mode": "lora",
    "epochs": 2,
    "global_batch_size": 16,
    "n_processes": 2,
    "checkpoint_steps": 1,
    "n_bootstrap": 100,
}


def test_a_local_run_unpickles_nothing_from_files(tmp_path: Path) -> None:
    write_source(tmp_path / "source", 120)
    write_backbone(tmp_path / "backbone")
    log = tmp_path / "log"
    log.mkdir()
    values = PARAMETERS | {"data": tmp_path / "source", "backbone": tmp_path / "backbone"}
    command = [sys.executable, "-m", "pipelines", "run", "--output", str(tmp_path / "runs")]
    command += [word for name, value in values.items() for word in ("--param", f"{name}={value}")]
    path = os.pathsep.join([str(AUDIT), os.environ.get("PYTHONPATH", str(Path.cwd()))])
    environment = os.environ | {"PYTHONPATH": path, "AUDIT_LOG": str(log), "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    lines = [line for file in log.iterdir() for line in file.read_text().splitlines()]
    processes = [line for line in lines if line.startswith("process ")]
    assert (
        sum("components.train_baseline.train" in line for line in processes) >= 3
    )  # torchrun and both ranks
    assert len(processes) >= 10  # the pipeline and its seven steps
    assert [line for line in lines if line.startswith("FILE")] == []
    assert not (tmp_path / "runs/.checkpoints").exists()

"""Signals to a real run while it trains, inside kfp.local's loop over adaptations."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import yaml

from tests.chaos.runs import Run, problems
from tests.components.conftest import write_backbone, write_source

pytestmark = pytest.mark.slow

TRAINING = "Executing task 'train-full'"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, backbone and parameters; its runs share a cache."""
    root = tmp_path_factory.mktemp("signals")
    write_source(root / "data")
    write_backbone(root / "backbone")
    values = {
        "data": str(root / "data"),
        "backbone": str(root / "backbone"),
        "image_size": 56,
        "epochs": 200,
        "min_per_class": 2,
        "n_bootstrap": 100,
        "n_processes": 1,
    }
    (root / "run.yaml").write_text(yaml.safe_dump(values))
    return root


@pytest.mark.parametrize(
    ("name", "whole_group", "store"),
    [
        ("SIGINT", True, "none"),
        ("SIGINT", False, "none"),
        ("SIGTERM", False, "embedded"),
        ("SIGHUP", False, "none"),
        ("SIGKILL", False, "embedded"),
    ],
)
def test_a_signal_ends_the_run_its_step_its_ranks_and_its_store(
    root: Path, tmp_path: Path, name: str, whole_group: bool, store: str
) -> None:
    number = getattr(signal, name)
    options = ["--params", str(root / "run.yaml"), "--modes", "full,lora", "--store", store]
    run = Run(options, root / "runs", tmp_path / "log", tmp_path / "tmp").start()
    started = time.monotonic()
    while TRAINING not in run.printed():
        assert run.process.poll() is None, run.printed()
        assert time.monotonic() - started < 300
        time.sleep(0.1)
    time.sleep(4)  # torchrun or its rank imports torch, or the rank trains

    (os.killpg if whole_group else os.kill)(run.process.pid, number)
    began = time.monotonic()
    assert run.wait(30)
    while run.processes() and time.monotonic() - began < 30:
        time.sleep(0.02)
    seconds = time.monotonic() - began

    assert problems(run, number) == []
    assert run.process.returncode == (-number if name == "SIGKILL" else 128 + number)
    assert seconds < 5 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    if name != "SIGKILL":
        newest = max((root / "runs").glob("streetvision-*"))
        status = json.loads((newest / "train-full/status.json").read_text())
        assert (status["state"], status["message"]) == ("failed", "interrupted by SIGTERM")

"""A rank that dies or hangs ends the group in time, is named, and nothing is left behind."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.shared.contracts.errors import TransientError
from components.shared.training.launch.heartbeat import Heartbeat
from components.shared.training.launch.torchrun import launch
from tests.faults.campaign import processes

HANG_SECONDS = 3.0


@pytest.fixture(autouse=True)
def launched_warm() -> None:
    """Start new interpreters: how a launch starts and ends is what these tests are about."""


def _job(directory: Path, **job: object) -> Path:
    file = directory / "job.json"
    file.write_text(json.dumps({"changes": {"epochs": 50}} | job), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("fault", "n_processes", "message"),
    [
        ("kill", 2, "rank 1 was killed by SIGKILL in step 3"),
        ("hang", 2, r"rank 1 hangs in step 3: no sign of life for [345] s$"),
        ("hang", 1, r"rank 0 hangs in step 3: no sign of life for [345] s$"),
    ],
)
def test_a_dead_or_hung_rank_ends_the_group_and_is_named(
    tmp_path: Path, fault: str, n_processes: int, message: str
) -> None:
    before = set(Path("/dev/shm").iterdir()), set(Path("/tmp").glob("torchelastic_*"))
    with pytest.raises(TransientError, match=message):
        launch(
            "tests.components.shared.training.toy",
            _job(tmp_path, fault=fault),
            n_processes=n_processes,
            hang_seconds=HANG_SECONDS if fault == "hang" else 60.0,
        )
    assert not processes(str(tmp_path))
    assert (set(Path("/dev/shm").iterdir()), set(Path("/tmp").glob("torchelastic_*"))) == before
    heartbeat = Heartbeat(tmp_path / "heartbeat")
    assert heartbeat.last_step(n_processes - 1) == "in step 3"


def test_no_rank_outlives_a_killed_step(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys; from components.shared.training.launch.torchrun import launch; "
        "launch('tests.components.shared.training.toy', pathlib.Path(sys.argv[1]), n_processes=2)"
    )
    job = _job(tmp_path, fault="hang")
    step = subprocess.Popen([sys.executable, "-c", code, str(job)])
    try:
        ends = time.monotonic() + 60
        while not (
            (tmp_path / "heartbeat").is_file()
            and Heartbeat(tmp_path / "heartbeat").last_step(1) == "in step 3"
        ):
            assert time.monotonic() < ends
            time.sleep(0.05)
    finally:
        step.send_signal(signal.SIGKILL)
        step.wait()
    ends = time.monotonic() + 5
    while processes(str(tmp_path)) and time.monotonic() < ends:
        time.sleep(0.05)
    assert not processes(str(tmp_path))

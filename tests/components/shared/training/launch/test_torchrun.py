"""A rank that dies or hangs ends the group in time, is named, and nothing is left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from components.shared.contracts.errors import TransientError
from components.shared.training.launch import torchrun
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


def _left_behind() -> set[Path]:
    """Shared memory and folders of launches; joblib's semaphores are of tests that run beside."""
    shared = {path for path in Path("/dev/shm").iterdir() if not path.name.startswith("sem.loky-")}
    return shared | set(Path("/tmp").glob("torchelastic_*"))


@pytest.mark.parametrize(
    ("fault", "n_processes", "message"),
    [
        ("kill", 2, "rank 1 was killed by SIGKILL in step 3"),
        pytest.param(
            "hang",
            2,
            r"rank 1 hangs in step 3: no sign of life for \d+ s$",
            marks=pytest.mark.slow,
        ),
        ("hang", 1, r"rank 0 hangs in step 3: no sign of life for \d+ s$"),
    ],
)
def test_a_dead_or_hung_rank_ends_the_group_and_is_named(
    tmp_path: Path, fault: str, n_processes: int, message: str
) -> None:
    before = _left_behind()
    with pytest.raises(TransientError, match=message):
        launch(
            "tests.components.shared.training.toy",
            _job(tmp_path, fault=fault),
            n_processes=n_processes,
            hang_seconds=HANG_SECONDS if fault == "hang" else 60.0,
        )
    assert not processes(str(tmp_path))
    assert _left_behind() == before
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


@pytest.mark.parametrize(
    ("given", "threads", "waiting"),
    [({}, None, "PASSIVE"), ({"OMP_NUM_THREADS": "3", "OMP_WAIT_POLICY": "ACTIVE"}, "3", "ACTIVE")],
)
def test_threads_share_the_cores_and_give_them_away_unless_the_user_decides(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, str],
    threads: str | None,
    waiting: str,
) -> None:
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    started: list[dict[str, str]] = []

    def popen(command: list[str], env: dict[str, str]) -> "subprocess.Popen[bytes]":
        started.append(env)
        return subprocess.Popen(["true"])

    monkeypatch.setattr(torchrun, "subprocess", SimpleNamespace(Popen=popen))
    launch("module", _job(tmp_path), n_processes=1)
    cores = str(len(os.sched_getaffinity(0)))
    assert started[0]["OMP_NUM_THREADS"] == (threads or cores)
    assert started[0]["OMP_WAIT_POLICY"] == waiting

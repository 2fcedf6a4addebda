"""A rank that dies or hangs ends the group in time, is named, and nothing is left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from components.shared.contracts.errors import MemoryExhaustedError, PermanentError, TransientError
from components.shared.training.launch.failures import report_error, reported_error
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
    pulse = Heartbeat(tmp_path / "pulse")
    assert pulse.last_step(n_processes - 1) == "in step 3"


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
            (tmp_path / "pulse").is_file()
            and Heartbeat(tmp_path / "pulse").last_step(1) == "in step 3"
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


def test_the_cause_is_the_error_raised_on_purpose_then_the_killed_rank(tmp_path: Path) -> None:
    pulse = Heartbeat(tmp_path / "pulse", 2)
    pulse.beat(1, 7)
    assert "left no message" in str(reported_error(tmp_path, 1, pulse))
    report_error(tmp_path, 0, RuntimeError("connection closed by peer"))
    assert str(reported_error(tmp_path, 1, pulse)).startswith(
        "rank 0 failed before the first step: RuntimeError"
    )
    (tmp_path / "agent.json").write_text('{"failures": [{"rank": 1, "exit_code": -15}]}')
    assert str(reported_error(tmp_path, 1, pulse)).startswith(
        "rank 0 failed before the first step: RuntimeError"
    )
    (tmp_path / "agent.json").write_text('{"failures": [{"rank": 1, "exit_code": -9}]}')
    assert (
        str(reported_error(tmp_path, 1, pulse))
        == "rank 1 was killed by SIGKILL in step 7; out of memory?"
    )
    report_error(tmp_path, 1, TransientError("on purpose"))
    assert str(reported_error(tmp_path, 1, pulse)) == "on purpose"


def test_a_kill_for_want_of_memory_is_told_from_another_where_the_kernel_counts_them(
    tmp_path: Path,
) -> None:
    pulse = Heartbeat(tmp_path / "pulse", 2)
    killed = reported_error(tmp_path, -9, pulse, out_of_memory=True)
    assert isinstance(killed, MemoryExhaustedError)
    assert str(killed).endswith("left no message; see the log above; out of memory")
    (tmp_path / "agent.json").write_text('{"failures": [{"rank": 1, "exit_code": -9}]}')
    said = "rank 1 was killed by SIGKILL before the first step"
    killed = reported_error(tmp_path, 1, pulse, out_of_memory=True)
    assert isinstance(killed, MemoryExhaustedError)
    assert str(killed) == f"{said}: out of memory, the container reached its limit"
    other = reported_error(tmp_path, 1, pulse, out_of_memory=False)
    assert (type(other), str(other)) == (TransientError, said)
    assert str(reported_error(tmp_path, 1, pulse)) == f"{said}; out of memory?"


def test_memory_of_a_gpu_that_is_exhausted_later_is_named_as_such(tmp_path: Path) -> None:
    report_error(
        tmp_path, 0, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    )
    error = reported_error(tmp_path, 1, Heartbeat(tmp_path / "pulse", 1))
    assert isinstance(error, MemoryExhaustedError)
    assert str(error).startswith(
        "rank 0 failed before the first step: OutOfMemoryError: CUDA out of memory. Tried"
    )


def test_the_permanent_exit_code_is_permanent_without_a_message(tmp_path: Path) -> None:
    (tmp_path / "agent.json").write_text(
        '{"failures": [{"rank": 1, "exit_code": 42}, {"rank": 0, "exit_code": -9}]}'
    )
    error = reported_error(tmp_path, 1, Heartbeat(tmp_path / "pulse", 2))
    assert isinstance(error, PermanentError)
    assert str(error) == "rank 1 ended with exit code 42 and left no message; see the log above"


def test_a_clock_that_goes_backwards_does_not_change_the_cause(tmp_path: Path) -> None:
    report_error(tmp_path, 1, ValueError("first"))
    report_error(tmp_path, 0, RuntimeError("second"))
    os.utime(tmp_path / "error-rank0.json", (0, 0))
    assert "rank 1 failed" in str(reported_error(tmp_path, 1, Heartbeat(tmp_path / "pulse", 2)))


def test_ranks_that_wait_for_the_hung_one_are_not_blamed(tmp_path: Path) -> None:
    pulse = Heartbeat(tmp_path / "pulse", 3)
    for rank in range(3):
        pulse.beat(rank, 4, waiting=rank != 1)
    assert pulse.hung(10) == ""
    time.sleep(0.02)
    assert pulse.hung(0.01).startswith("rank 1 hangs in step 4")
    pulse.beat(1, waiting=True)
    time.sleep(0.02)
    assert pulse.hung(0.01).count("hangs") == 3

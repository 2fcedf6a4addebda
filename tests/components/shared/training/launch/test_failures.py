"""The cause of a failed launch, from what ranks and torchrun left."""

import os
from pathlib import Path

import torch

from components.shared.contracts.errors import (
    MemoryExhaustedError,
    PermanentError,
    StreetVisionError,
    TransientError,
)
from components.shared.training.launch.failures import report_error, reported_failure
from components.shared.training.launch.heartbeat import Heartbeat


def reported_error(
    directory: Path, exit_code: int, heartbeat: Heartbeat, *, out_of_memory: bool | None = None
) -> StreetVisionError:
    return reported_failure(directory, exit_code, heartbeat, out_of_memory=out_of_memory).error


def test_the_cause_is_the_error_raised_on_purpose_then_the_killed_rank(tmp_path: Path) -> None:
    heartbeat = Heartbeat(tmp_path / "heartbeat", 2)
    heartbeat.record(1, 7)
    assert "left no message" in str(reported_error(tmp_path, 1, heartbeat))
    report_error(tmp_path, 0, RuntimeError("connection closed by peer"))
    assert str(reported_error(tmp_path, 1, heartbeat)).startswith(
        "rank 0 failed before the first step: RuntimeError"
    )
    (tmp_path / "agent.json").write_text('{"failures": [{"rank": 1, "exit_code": -15}]}')
    assert str(reported_error(tmp_path, 1, heartbeat)).startswith(
        "rank 0 failed before the first step: RuntimeError"
    )
    (tmp_path / "agent.json").write_text('{"failures": [{"rank": 1, "exit_code": -9}]}')
    assert (
        str(reported_error(tmp_path, 1, heartbeat))
        == "rank 1 was killed by SIGKILL in step 7; out of memory?"
    )
    report_error(tmp_path, 1, TransientError("on purpose"))
    assert str(reported_error(tmp_path, 1, heartbeat)) == "on purpose"


def test_a_kill_for_want_of_memory_is_told_from_another_where_the_kernel_counts_them(
    tmp_path: Path,
) -> None:
    heartbeat = Heartbeat(tmp_path / "heartbeat", 2)
    killed = reported_error(tmp_path, -9, heartbeat, out_of_memory=True)
    assert isinstance(killed, MemoryExhaustedError)
    assert str(killed).endswith("left no message; see the log above; out of memory")
    (tmp_path / "agent.json").write_text('{"failures": [{"rank": 1, "exit_code": -9}]}')
    said = "rank 1 was killed by SIGKILL before the first step"
    killed = reported_error(tmp_path, 1, heartbeat, out_of_memory=True)
    assert isinstance(killed, MemoryExhaustedError)
    assert str(killed) == f"{said}: out of memory, the container reached its limit"
    other = reported_error(tmp_path, 1, heartbeat, out_of_memory=False)
    assert (type(other), str(other)) == (TransientError, said)
    assert str(reported_error(tmp_path, 1, heartbeat)) == f"{said}; out of memory?"


def test_memory_of_a_gpu_that_is_exhausted_later_is_named_as_such(tmp_path: Path) -> None:
    report_error(
        tmp_path, 0, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    )
    error = reported_error(tmp_path, 1, Heartbeat(tmp_path / "heartbeat", 1))
    assert isinstance(error, MemoryExhaustedError)
    assert str(error).startswith(
        "rank 0 failed before the first step: OutOfMemoryError: CUDA out of memory. Tried"
    )


def test_the_permanent_exit_code_is_permanent_without_a_message(tmp_path: Path) -> None:
    (tmp_path / "agent.json").write_text(
        '{"failures": [{"rank": 1, "exit_code": 42}, {"rank": 0, "exit_code": -9}]}'
    )
    error = reported_error(tmp_path, 1, Heartbeat(tmp_path / "heartbeat", 2))
    assert isinstance(error, PermanentError)
    assert str(error) == "rank 1 ended with exit code 42 and left no message; see the log above"


def test_a_clock_that_goes_backwards_does_not_change_the_cause(tmp_path: Path) -> None:
    report_error(tmp_path, 1, ValueError("first"))
    report_error(tmp_path, 0, RuntimeError("second"))
    os.utime(tmp_path / "error-rank0.json", (0, 0))
    assert "rank 1 failed" in str(reported_error(tmp_path, 1, Heartbeat(tmp_path / "heartbeat", 2)))


def test_a_full_disk_is_named_as_such_whichever_library_met_it(tmp_path: Path) -> None:
    """numpy's error has no number."""
    heartbeat = Heartbeat(tmp_path / "heartbeat", 1)
    report_error(tmp_path, 0, OSError("131082 requested and 131056 written"))
    found = reported_error(tmp_path, 1, heartbeat)
    assert type(found) is TransientError
    assert str(found) == "No space left on device (131082 requested and 131056 written)"


def test_damaged_reports_are_left_out(tmp_path: Path) -> None:
    """A full disk or a killed rank leaves anything; the cause is then what the others say."""
    heartbeat = Heartbeat(tmp_path / "heartbeat", 2)
    for number, data in enumerate((b"", b"{}", b"[]", b"\xff", b'{"class": "x", "message": 5}')):
        (tmp_path / f"error-rank{number}.json").write_bytes(data)
    (tmp_path / "error-rankx.json").write_text('{"class": "x", "message": "m", "monotonic_ns": 1}')
    for data in (b"", b"[]", b'{"failures": 5}', b'{"failures": [{"rank": 1}]}'):
        (tmp_path / "agent.json").write_bytes(data)
        assert "left no message" in str(reported_error(tmp_path, 1, heartbeat))

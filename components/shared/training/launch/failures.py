"""The cause of a failure, from the records of the ranks and of torchrun.

Own records instead of torch's `errors.record`: its reply file has the error's class only inside a
text, and orders failures by the wall clock in whole seconds, in which all ranks fail after one.
"""

import json
import signal
import time
from pathlib import Path
from typing import Any

from components.shared.contracts import errors
from components.shared.contracts.artifacts import write_json
from components.shared.contracts.disk import full_disk
from components.shared.contracts.errors import (
    PERMANENT_EXIT_CODE,
    MemoryExhaustedError,
    PermanentError,
    StreetVisionError,
    TransientError,
    one_line,
)
from components.shared.training.launch.heartbeat import Heartbeat

AGENT_FILE = "agent.json"
_ERROR_FILE = "error-rank{rank}.json"
# Names of the errors by which torch, for a GPU, and Python say that memory is exhausted.
_MEMORY_ERRORS = ("OutOfMemoryError", "MemoryError")


def report_error(directory: Path, rank: int, error: BaseException) -> None:
    """Record the class and message of a failing rank's error."""
    full = full_disk(error)
    document = {
        "class": TransientError.__name__ if full else type(error).__name__,
        "message": full or one_line(error),
        "monotonic_ns": time.monotonic_ns(),
    }
    write_json(directory / _ERROR_FILE.format(rank=rank), document)


def reported_error(
    directory: Path, exit_code: int, heartbeat: Heartbeat, *, out_of_memory: bool | None = None
) -> StreetVisionError:
    """Return the cause of a failure as an error to raise.

    It is an error raised on purpose, else a rank that was killed, else the first unexpected error.
    The other ranks fail after the first, for want of their peer; the wall clock is not asked who
    that was. `out_of_memory`: whether the kernel killed a process of the container meanwhile for
    want of memory; None: unknown.
    """
    reports = [_read(file) for file in directory.glob(_ERROR_FILE.format(rank="*"))]
    reports.sort(key=lambda report: report["monotonic_ns"])

    for report in reports:
        kind = getattr(errors, report["class"], None)
        if isinstance(kind, type) and issubclass(kind, StreetVisionError):
            return kind(report["message"])

    agent = directory / AGENT_FILE
    failures = json.loads(agent.read_text(encoding="utf-8"))["failures"] if agent.is_file() else []
    for failure in failures:
        if failure["exit_code"] == PERMANENT_EXIT_CODE:
            return PermanentError(
                f"rank {failure['rank']} ended with exit code 42 and left no message; see the log"
                " above"
            )

    for failure in failures:
        # SIGTERM is how torchrun ends the others.
        if failure["exit_code"] < 0 and failure["exit_code"] != -signal.SIGTERM:
            name, where = (
                signal.Signals(-failure["exit_code"]).name,
                heartbeat.last_step(failure["rank"]),
            )
            return _killed(
                f"rank {failure['rank']} was killed by {name} {where}", name, out_of_memory
            )

    for report in reports:
        where = heartbeat.last_step(report["rank"])
        exhausted = out_of_memory or report["class"] in _MEMORY_ERRORS
        kind = MemoryExhaustedError if exhausted else TransientError
        return kind(f"rank {report['rank']} failed {where}: {report['class']}: {report['message']}")

    message = (
        f"training processes ended with exit code {exit_code} and left no message; see the log"
        " above"
    )

    return (
        MemoryExhaustedError(f"{message}; out of memory")
        if out_of_memory
        else TransientError(message)
    )


def _killed(message: str, name: str, out_of_memory: bool | None) -> TransientError:
    if out_of_memory:
        return MemoryExhaustedError(f"{message}: out of memory, the container reached its limit")
    return TransientError(
        f"{message}; out of memory?" if name == "SIGKILL" and out_of_memory is None else message
    )


def _read(file: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return document | {"rank": int(file.stem.removeprefix("error-rank"))}

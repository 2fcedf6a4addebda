"""The cause of a failure, from the records of the ranks and of torchrun.

Own records instead of torch's `errors.record`: its reply file has the error's class only inside a
text, and orders failures by the wall clock in whole seconds, in which all ranks fail after one.
"""

import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.shared.contracts.artifacts import write_json
from components.shared.contracts.disk import full_disk
from components.shared.contracts.documents import read_object
from components.shared.contracts.errors import (
    PERMANENT_EXIT_CODE,
    ArtifactError,
    MemoryExhaustedError,
    PermanentError,
    StreetVisionError,
    TransientError,
    error_class,
    one_line,
)
from components.shared.training.launch.heartbeat import Heartbeat
from components.shared.training.launch.memory import says_out_of_memory

AGENT_FILE = "agent.json"
_ERROR_FILE = "error-rank{rank}.json"


def report_error(directory: Path, rank: int, error: BaseException) -> None:
    """Record the class and message of a failing rank's error."""
    full = full_disk(error)
    document = {
        "class": TransientError.__name__ if full else type(error).__name__,
        "message": full or one_line(error),
        "monotonic_ns": time.monotonic_ns(),
    }
    write_json(directory / _ERROR_FILE.format(rank=rank), document)


@dataclass(frozen=True)
class Failure:
    """Why a start of the processes failed.

    `is_cause`: False where the failure of another machine may explain it. `monotonic_ns`: when it
    was reported, 0 where nobody did.
    """

    error: StreetVisionError
    is_cause: bool = True
    monotonic_ns: int = 0


def reported_failure(
    directory: Path, exit_code: int, heartbeat: Heartbeat, *, out_of_memory: bool | None = None
) -> Failure:
    """Return the cause of a failure, with the error to raise.

    It is an error raised on purpose, else a rank that was killed, else the first unexpected error.
    The other ranks fail after the first, for want of their peer; the wall clock is not asked who
    that was. `out_of_memory`: whether the kernel killed a process of the container meanwhile for
    want of memory; None: unknown.
    """
    files = sorted(directory.glob(_ERROR_FILE.format(rank="*")))
    reports = [report for file in files if (report := _read(file)) is not None]
    reports.sort(key=lambda report: report["monotonic_ns"])

    for report in reports:
        named = error_class(report["class"])
        if named is not None:
            return Failure(named(report["message"]), monotonic_ns=report["monotonic_ns"])

    failures = _failures(directory / AGENT_FILE)
    for failure in failures:
        if failure["exit_code"] == PERMANENT_EXIT_CODE:
            return Failure(
                PermanentError(
                    f"rank {failure['rank']} ended with exit code 42 and left no message; see the"
                    " log above"
                )
            )

    for failure in failures:
        # SIGTERM is how torchrun ends the others.
        if failure["exit_code"] < 0 and failure["exit_code"] != -signal.SIGTERM:
            name, where = (
                signal.Signals(-failure["exit_code"]).name,
                heartbeat.last_step(failure["rank"]),
            )
            return Failure(
                _killed(f"rank {failure['rank']} was killed by {name} {where}", name, out_of_memory)
            )

    for report in reports:
        where = heartbeat.last_step(report["rank"])
        exhausted = bool(out_of_memory) or says_out_of_memory(report["class"], report["message"])
        kind = MemoryExhaustedError if exhausted else TransientError
        message = f"rank {report['rank']} failed {where}: {report['class']}: {report['message']}"
        return Failure(kind(message), exhausted, report["monotonic_ns"])

    message = (
        f"training processes ended with exit code {exit_code} and left no message; see the log"
        " above"
    )

    if out_of_memory:
        return Failure(MemoryExhaustedError(f"{message}; out of memory"))
    return Failure(TransientError(message), is_cause=False)


def _killed(message: str, name: str, out_of_memory: bool | None) -> TransientError:
    if out_of_memory:
        return MemoryExhaustedError(f"{message}: out of memory, the container reached its limit")
    return TransientError(
        f"{message}; out of memory?" if name == "SIGKILL" and out_of_memory is None else message
    )


def _read(file: Path) -> dict[str, Any] | None:
    """Return the report of a rank; None where the file holds none, as on a full disk."""
    try:
        document = read_object(file, dict[str, str | int])
    except ArtifactError:
        return None

    rank = file.stem.removeprefix("error-rank")
    types = {"class": str, "message": str, "monotonic_ns": int}
    if not rank.isdecimal() or any(type(document.get(name)) is not t for name, t in types.items()):
        return None
    return document | {"rank": int(rank)}


def _failures(file: Path) -> list[dict[str, int]]:
    """Return rank and exit code of the ranks that failed; none where the file does not say."""
    try:
        document = read_object(file, dict[str, list[dict[str, int]]])
    except ArtifactError:
        return []
    failures = document.get("failures", [])
    return [failure for failure in failures if failure.keys() == {"rank", "exit_code"}]

"""Why did the training processes fail? What ranks and torchrun left for the step, and which of it is the cause."""

import json
import signal
import time
from pathlib import Path
from typing import Any

from components.shared import errors
from components.shared.artifacts import write_json
from components.shared.errors import StreetVisionError, TransientError, one_line
from components.shared.training.liveness import Pulse

DIRECTORY_VARIABLE = "STREETVISION_REPORTS"
AGENT_FILE = "agent.json"
_ERROR_FILE = "error-rank{rank}.json"


def report_error(directory: Path, rank: int, error: BaseException) -> None:
    """Called by a failing rank: leave the error's class and message."""
    document = {"class": type(error).__name__, "message": one_line(error), "monotonic_ns": time.monotonic_ns()}
    write_json(directory / _ERROR_FILE.format(rank=rank), document)


def reported_error(directory: Path, exit_code: int, pulse: Pulse) -> StreetVisionError:
    """The cause: an error raised on purpose, else a rank that was killed, else the first unexpected error.

    The other ranks fail after the first, for want of their peer; the wall clock is not asked who that was.
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
        # SIGTERM is how torchrun ends the others.
        if failure["exit_code"] < 0 and failure["exit_code"] != -signal.SIGTERM:
            name, place = signal.Signals(-failure["exit_code"]).name, pulse.last_step(failure["rank"])
            hint = "; out of memory?" if name == "SIGKILL" else ""
            return TransientError(f"rank {failure['rank']} was killed by {name} {place}{hint}")
    for report in reports:
        place = pulse.last_step(report["rank"])
        return TransientError(f"rank {report['rank']} failed {place}: {report['class']}: {report['message']}")
    return TransientError(f"training processes ended with exit code {exit_code} and left no message; see the log above")


def _read(file: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return document | {"rank": int(file.stem.removeprefix("error-rank"))}

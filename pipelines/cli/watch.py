"""A run as it goes on: its state once or again and again, its changes until it ends."""

import json
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from components.shared.contracts.errors import TransientError, one_line
from pipelines.exit_codes import CANCELLED, STILL_RUNNING

if TYPE_CHECKING:
    from pipelines.kubeflow.run_report import RunReader, RunReport

_EXIT_CODES = {"succeeded": 0, "failed": 1, "cancelled": CANCELLED}
_MOST_FAILED_REQUESTS = 30  # in a row, before waiting ends with the error
_CLEAR = "\033[H\033[2J"


class _Polling:
    """Reports of a run; a request that fails for a reason that may pass is repeated."""

    def __init__(self, reader: "RunReader", run_id: str) -> None:
        self._reader, self._run_id = reader, run_id
        self._n_failed = 0

    def report(self) -> "RunReport | None":
        """Return the run as it is now, or None if KFP does not answer.

        The first failure in a row is printed as a line.
        """
        try:
            report = self._reader.report(self._run_id)
        except TransientError as error:
            self._n_failed += 1
            if self._n_failed > _MOST_FAILED_REQUESTS:
                raise

            if self._n_failed == 1:
                print(f"{one_line(error)}; looking again", file=sys.stderr)
            return None

        self._n_failed = 0
        return report


def show_status(
    reader: "RunReader", run_id: str, poll: float | None = None, *, as_json: bool = False
) -> None:
    """Print a run and its steps: once, or every `poll` seconds until it ends.

    Raises StreetVisionError if the first request fails.
    """
    report: RunReport | None = reader.report(run_id)
    polling = _Polling(reader, run_id)
    while True:
        if report is not None:
            _print_status(report, again=poll is not None, as_json=as_json)
        if poll is None or (report is not None and report.run.has_ended):
            return

        time.sleep(poll)
        report = polling.report()


def wait_for(reader: "RunReader", run_id: str, timeout: float, poll: float) -> int:
    """Print every change of a step until the run has ended, then the reason of a failure.

    Args:
        reader: reads the run with its reasons.
        run_id: id of the run.
        timeout: seconds after which waiting ends although the run goes on.
        poll: seconds between two requests; one that fails for a reason that may pass is repeated.

    Returns:
        The exit code of `wait`.
    """
    before: RunReport | None = None
    polling = _Polling(reader, run_id)
    ends = time.monotonic() + timeout

    while True:
        report = polling.report()
        if report is not None:
            _print_changes(before, report)
            if report.run.has_ended:
                return _ended(report)
            before = report

        if time.monotonic() > ends:
            state = before.run.state if before else "not seen"
            print(
                f"run {run_id} still {state} after {timeout:g} s; see: python -m pipelines status"
                f" {run_id}"
            )
            return STILL_RUNNING

        time.sleep(poll)


def _print_status(report: "RunReport", *, again: bool, as_json: bool) -> None:
    from pipelines.kubeflow.run_text import status_lines

    if as_json:
        print(json.dumps(report.to_json()), flush=True)
        return

    lines = status_lines(report, datetime.now(UTC))
    if again and sys.stdout.isatty():
        print(_CLEAR, end="")
    print("\n".join(lines), flush=True)


def _print_changes(before: "RunReport | None", report: "RunReport") -> None:
    from pipelines.kubeflow.run_text import changes

    _print_now(changes(before, report))
    known = before.remarks if before else ()
    _print_now([f"note: {remark}" for remark in report.remarks if remark not in known])


def _print_now(lines: Iterable[str]) -> None:
    for line in lines:
        print(f"{datetime.now(UTC):%H:%M:%S}  {line}", flush=True)


def _ended(report: "RunReport") -> int:
    """Print the outcome of a run with the reason of a failure; return the exit code."""
    from pipelines.kubeflow.run_text import run_line

    run = report.run
    reason = f": {report.failure}" if report.failure else ""
    print(f"run {run.run_id} {run_line(run, datetime.now(UTC))}{reason}")
    failed = [step.name for step in run.steps if step.state == "failed"]
    if failed:
        print(f"its log: python -m pipelines logs {run.run_id} --step {failed[0]}")

    return _EXIT_CODES[run.state]

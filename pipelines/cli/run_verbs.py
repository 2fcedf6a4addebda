"""The verbs that look at runs: status, logs, wait, cancel, open, runs, download.

Heavy imports stand inside the functions: `--help` and wrong options answer at once.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from components.shared.contracts.errors import ConfigError, TransientError, one_line

if TYPE_CHECKING:
    from pipelines.kubeflow.cluster import Cluster
    from pipelines.kubeflow.run_report import RunReader, RunReport
    from pipelines.kubeflow.run_status import RunStatus, StepStatus

STILL_RUNNING = 124  # as `timeout` has it
_EXIT_CODES = {"succeeded": 0, "failed": 1, "cancelled": 2}
_MOST_FAILED_LOOKS = 30  # in a row, before waiting ends with the error
_CLEAR = "\033[H\033[2J"
_WHY_NO_LOG = {
    "waiting": "has not started",
    "skipped": "did not run",
    "cached": "came from the cache; its log is with the run that made it",
}


class _Looks:
    """Looks at a run again and again; one that fails for a reason that may pass is repeated."""

    def __init__(self, reader: "RunReader", run_id: str) -> None:
        self._reader, self._run_id = reader, run_id
        self._n_failed = 0

    def report(self) -> "RunReport | None":
        """Return the run as it is now; None, with a line for the first time in a row, where KFP
        does not answer.
        """
        try:
            report = self._reader.report(self._run_id)
        except TransientError as error:
            self._n_failed += 1
            if self._n_failed > _MOST_FAILED_LOOKS:
                raise
            if self._n_failed == 1:
                print(f"{one_line(error)}; looking again", file=sys.stderr)
            return None
        self._n_failed = 0
        return report


def status(parsed: argparse.Namespace) -> None:
    """Show a run and its steps; with --watch again and again until it ends."""
    cluster, reader = _open(parsed)
    run_id = _chosen_run(parsed, cluster)
    report: RunReport | None = reader.report(run_id)
    looks = _Looks(reader, run_id)
    while True:
        if report is not None:
            _show_status(parsed, report)
        if not parsed.watch or (report is not None and report.run.has_ended):
            return
        time.sleep(parsed.poll)
        report = looks.report()


def wait(parsed: argparse.Namespace) -> None:
    """Wait for a run; the exit code tells its outcome."""
    cluster, reader = _open(parsed)
    run_id = _chosen_run(parsed, cluster)
    if not parsed.run:
        print(f"waiting for run {run_id}", flush=True)
    sys.exit(wait_for(reader, run_id, parsed.timeout, parsed.poll))


def wait_for(reader: "RunReader", run_id: str, timeout: float, poll: float) -> int:
    """Print every change of a step until the run has ended, then the reason of a failure; return
    the exit code.

    timeout, poll: seconds. A look that fails for a reason that may pass is repeated.
    """
    before: RunReport | None = None
    looks = _Looks(reader, run_id)
    ends = time.monotonic() + timeout
    while True:
        report = looks.report()
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


def logs(parsed: argparse.Namespace) -> None:
    """Show what a run's steps wrote: of a running step from its pod, else from the object store."""
    cluster, reader = _open(parsed)
    run_id = _chosen_run(parsed, cluster)
    if parsed.follow:
        lines = _followed(reader, cluster, run_id, parsed)
    else:
        run = cluster.run(run_id)
        chosen = _chosen_steps(run, parsed.step)
        lines = (
            line for step in chosen for line in _log(reader, run, step, named=bool(parsed.step))
        )
    for line in lines:
        print(line, flush=parsed.follow)
    for remark in reader.remarks:
        print(f"note: {remark}", file=sys.stderr)


def cancel(parsed: argparse.Namespace) -> None:
    """Cancel a run that has not ended."""
    from pipelines.kubeflow.cluster import connect

    cluster = connect(parsed)
    run = cluster.run(parsed.run)
    if run.has_ended:
        print(f"run {parsed.run} has ended already: {run.state}")
        return
    try:
        cluster.cancel(parsed.run)
    except TransientError as error:
        raise TransientError(
            f"{error}; where the run's Workflow was removed with its schedule, KFP cannot end the"
            f" run: archive it in the interface, {_address(cluster, parsed.run)}"
        ) from error
    print(
        f"run {parsed.run} is being cancelled; its pods end within a minute. KFP will call it"
        " FAILED"
    )


def open_interface(parsed: argparse.Namespace) -> None:
    """Print the address of a run in KFP's user interface."""
    from pipelines.kubeflow.cluster import connect

    cluster = connect(parsed)
    run_id = _chosen_run(parsed, cluster)
    print(_address(cluster, run_id))
    if not cluster.has_interface():
        print(
            f"note: {cluster.mode.host} is the API without the interface; forward the interface's"
            " port (kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80) and open the same"
            " path at http://localhost:8080",
            file=sys.stderr,
        )


def runs(parsed: argparse.Namespace) -> None:
    """List the newest runs of the pipeline."""
    from itertools import islice

    from pipelines.kubeflow.cluster import connect
    from pipelines.kubeflow.run_text import runs_lines

    found = list(islice(connect(parsed).runs(parsed.pipeline), parsed.limit))
    for line in runs_lines(found, datetime.now(UTC)):
        print(line)
    if not found:
        print(f"pipeline {parsed.pipeline} has no run")


def download(parsed: argparse.Namespace) -> None:
    """Copy a run's artifacts from the store."""
    from pipelines.kubeflow.cluster import connect
    from pipelines.kubeflow.download import download_run
    from pipelines.kubeflow.run_report import RunReader
    from pipelines.kubeflow.run_store import has_credentials, open_store

    # With all that is needed at hand, nothing is asked of KFP.
    if parsed.run and parsed.root and has_credentials(os.environ):
        run_id, pipeline, store = parsed.run, parsed.pipeline, open_store(parsed, None, None)
    else:
        cluster = connect(parsed)
        run_id = _chosen_run(parsed, cluster)
        run = cluster.run(run_id)
        pipeline = cluster.pipeline_name(run, parsed.pipeline)
        store = RunReader(parsed, cluster).store(run)

    for path, verified in download_run(
        store.store, store.root.uri, pipeline, run_id, parsed.output / run_id
    ):
        print(f"{path}  {'verified' if verified else 'not an artifact of ours, copied'}")


def _open(parsed: argparse.Namespace) -> tuple["Cluster", "RunReader"]:
    from pipelines.kubeflow.cluster import connect
    from pipelines.kubeflow.run_report import RunReader

    cluster = connect(parsed)
    return cluster, RunReader(parsed, cluster)


def _chosen_run(parsed: argparse.Namespace, cluster: "Cluster") -> str:
    return parsed.run or cluster.newest_run(parsed.pipeline)


def _show_status(parsed: argparse.Namespace, report: "RunReport") -> None:
    from pipelines.kubeflow.run_text import status_lines

    if parsed.json:
        print(json.dumps(report.to_json()), flush=True)
        return
    lines = status_lines(report, datetime.now(UTC))
    if parsed.watch and sys.stdout.isatty():
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
    print(
        f"run {run.run_id} {run_line(run, datetime.now(UTC))}"
        + (f": {report.failure}" if report.failure else "")
    )
    failed = [step.name for step in run.steps if step.state == "failed"]
    if failed:
        print(f"its log: python -m pipelines logs {run.run_id} --step {failed[0]}")
    return _EXIT_CODES[run.state]


def _chosen_steps(run: "RunStatus", wanted: str | None) -> list["StepStatus"]:
    """The steps to show. Raises ConfigError where the run has no such step."""
    if wanted is None:
        return list(run.steps)
    found = [step for step in run.steps if wanted in (step.name, step.task)]
    if not found:
        names = ", ".join(step.name for step in run.steps) or "none yet"
        raise ConfigError(f"run {run.run_id} has no step {wanted!r}; it has: {names}")
    return found


def _log(
    reader: "RunReader", run: "RunStatus", step: "StepStatus", *, named: bool
) -> Iterator[str]:
    """Lines of one step; of one without a log only where it was named."""
    from pipelines.kubeflow.run_logs import readable

    if step.state in ("waiting", "skipped", "cached"):
        if named:
            yield f"== {step.name}: {_WHY_NO_LOG[step.state]}"
        return

    n_shown = 0
    for attempt, lines in reader.step_logs(run, step):
        n_shown += 1
        yield f"== {step.name}" + (f", attempt {attempt + 1}" if step.attempts > 1 else "")
        yield from readable(lines)
    if not n_shown:
        yield f"== {step.name}: no log is found, neither in the object store nor of a pod"


def _followed(
    reader: "RunReader", cluster: "Cluster", run_id: str, parsed: argparse.Namespace
) -> Iterator[str]:
    """Lines of the chosen steps as they are written, one step after the other."""
    followed: set[str] = set()
    done: set[str] = set()
    while True:
        run = cluster.run(run_id)
        chosen = _chosen_steps(run, parsed.step)
        for step in chosen:
            if step.name in done or step.state == "waiting":
                continue
            if step.state == "running":
                yield from _live_log(reader, run, step, followed)
                continue
            if not any(name.startswith(f"{step.name} ") for name in followed):
                yield from _log(reader, run, step, named=bool(parsed.step))
            done.add(step.name)

        if run.has_ended or (parsed.step and all(step.name in done for step in chosen)):
            return
        time.sleep(parsed.poll)


def _live_log(
    reader: "RunReader", run: "RunStatus", step: "StepStatus", followed: set[str]
) -> Iterator[str]:
    """Lines of a running step's pods that were not followed yet, until they end."""
    from pipelines.kubeflow.run_logs import readable

    for pod, lines in reader.live_logs(run, step):
        if f"{step.name} {pod}" not in followed:
            followed.add(f"{step.name} {pod}")
            yield f"== {step.name}"
            yield from readable(lines)


def _address(cluster: "Cluster", run_id: str) -> str:
    return f"{cluster.mode.host}/#/runs/details/{run_id}"

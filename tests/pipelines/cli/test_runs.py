"""`cancel`, `open`, `runs` and a closed output, on the recorded answers of a real back end."""

import os
import subprocess
import sys

import pytest

from pipelines.cli.app import main
from pipelines.sources import ROOT as SOURCES
from tests.pipelines.cli.recorded import (
    NOIF,
    add_recorded,
    exit_code,
    lines_of,
)
from tests.pipelines.kfp_server import KfpServer, RefusedError, recorded
from tests.recordings.replay import add_run


def test_runs_are_listed_newest_first_and_only_those_of_the_pipeline(
    server: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    for run in recorded("api/runs-page")["runs"]:
        if "pipeline_version_reference" in run:
            add_run(server, run)
    lines = lines_of(capsys, "runs", *NOIF)
    assert [line.split()[3] for line in lines] == [
        "terminate",
        "bad",
        "kill-resubmit",
        "nightlyzwcfr-1-912587068",
        "kill",
        "collected",
        "noif-second",
        "noif-first",
    ]
    assert lines[0].startswith(
        "99af5cea-a080-45aa-a5c7-3386ecd205ff  2026-11-27 01:59:12  terminate "
    )
    assert lines[0].endswith("  cancelled after 1 min 23 s")
    assert [line.split()[3] for line in lines_of(capsys, "runs", "--limit", "1")] == ["second"]


def test_a_pipeline_without_runs_lists_none(
    server: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    add_recorded(server, "run-running")
    server.runs.clear()
    assert lines_of(capsys, "runs") == ["pipeline streetvision-stage1 has no run"]


def test_a_run_is_cancelled(server: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    run = add_recorded(server, "run-running")
    main(["cancel", run])
    assert server.runs[run]["state"] == "CANCELING"
    assert f"run {run} is being cancelled" in capsys.readouterr().out
    assert "): cancelling" in lines_of(capsys, "status", run)[0]


def test_a_run_that_has_ended_is_not_cancelled(
    server: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    run = add_recorded(server, "run-terminated")
    assert lines_of(capsys, "cancel", run) == [f"run {run} has ended already: cancelled"]
    assert not [request for request in server.requests if "terminate" in request]


def test_a_run_without_its_workflow_cannot_be_cancelled(
    server: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    run = add_recorded(server, "run-running")
    # The API looks for the Workflow after it has noted the order (resource_manager.go,
    # TerminateRun).
    refusal = RefusedError(500, "Failed to terminate run due to error terminating its workflow")
    server.fail_where = {":terminate": [refusal]}
    assert exit_code("cancel", run) == 1
    error = capsys.readouterr().err
    assert "KFP cannot end the run: archive it in the interface" in error
    assert f"{server.host}/#/runs/details/{run}" in error


def test_the_interfaces_address_is_printed(
    server: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    run = add_recorded(server, "run-running")
    main(["open"])
    shown = capsys.readouterr()
    assert shown.out == f"{server.host}/#/runs/details/{run}\n"
    assert "is the API without the interface" in shown.err
    server.has_interface = True
    main(["open", run])
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    "arguments",
    [["status"], ["runs"], ["logs"], ["wait", "--poll", "0"], ["status", "--json"], ["open"]],
)
def test_a_closed_output_ends_a_verb_quietly(server: KfpServer, arguments: list[str]) -> None:
    add_recorded(server, "run-succeeded")
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "pipelines", *arguments],
            stdout=writer,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(SOURCES)},
            text=True,
            check=False,
        )
    finally:
        os.close(writer)
    assert ended.returncode == 141
    assert "Traceback" not in ended.stderr
    assert "BrokenPipe" not in ended.stderr

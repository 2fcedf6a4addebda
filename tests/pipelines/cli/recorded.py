"""Recorded and generated runs in the fake server, and what a verb prints about them."""

from typing import Any

import pytest

from pipelines.cli.app import main
from tests.pipelines.argo_tasks import task_details
from tests.pipelines.kfp_server import KfpServer
from tests.recordings.replay import add_run, recorded_runs

RUNS = recorded_runs()
NOIF = ["--pipeline", "streetvision-noif"]
POLL = ["--poll", "0.01"]
BAD = "error: data='s3://streetvision/nowhere' holds no objects; is the prefix right?"


def add_recorded(server: KfpServer, *names: str) -> str:
    """Hold recorded runs; returns the id of the last."""
    for name in names:
        add_run(server, RUNS[name])
    return str(RUNS[names[-1]]["run_id"])


def add_made(
    server: KfpServer, steps: dict[str, str], state: str = "RUNNING", **fields: Any
) -> str:
    """Hold a run with generated nodes, of this pipeline."""
    run = RUNS["run-running"] | {"run_id": "made", "state": state, "display_name": "made", **fields}
    run["run_details"] = {"task_details": task_details("wf-1", steps, root=state)}
    server.add_run(run, "streetvision-stage1")
    return "made"


def exit_code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return int(caught.value.code or 0)


def lines_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    main(arguments)
    return capsys.readouterr().out.splitlines()

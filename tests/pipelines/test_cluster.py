"""The verbs against a server that validates every request with the models of kfp-server-api."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines import package as package_module
from pipelines.cli import main
from pipelines.package import write_package
from pipelines.sources import ROOT
from tests.pipelines.kfp_server import KfpServer, RefusedError, kfp_server

VALUES = ["--param", "data=s3://streetvision/data", "--param", "backbone=/models/dinov2", "--param", "epochs=5"]
TOKEN = "token-that-nobody-must-see"
STEPS = ["fingerprint-source", "ingest-dataset"]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The package and its version, compiled once."""
    file = tmp_path_factory.mktemp("package") / "stage1.yaml"
    return file, write_package(file, "a6000x2")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, compiled: tuple[Path, str], tmp_path: Path) -> Iterator[KfpServer]:
    """A server of a multi-user Kubeflow, its address and token in the environment."""
    monkeypatch.setattr(package_module, "package", lambda profile, queue: compiled)
    with kfp_server(token=TOKEN) as running:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", running.host)
        monkeypatch.setenv("STREETVISION_KFP_TOKEN", TOKEN)
        monkeypatch.setenv("HOME", str(tmp_path))
        yield running


def _fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and the one line on stderr."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, error
    assert TOKEN not in error
    return int(caught.value.code or 0), lines[0]


def _states(*states: str, run: str) -> dict[str, Any]:
    tasks = [
        {"display_name": name, "state": state, "task_id": name, "child_tasks": [{"pod_name": f"pod-{name}"}],
         "start_time": f"2026-01-01T00:0{index}:00Z", "end_time": f"2026-01-01T00:0{index}:30Z"}
        for index, (name, state) in enumerate(zip(STEPS, states, strict=False))
    ]  # fmt: skip
    return {"state": run, "run_details": {"task_details": tasks}}


def test_the_same_content_is_one_version(
    server: KfpServer, compiled: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["upload"])
    assert f"version {compiled[1]} uploaded" in capsys.readouterr().out
    main(["upload"])
    assert f"version {compiled[1]} is there already, nothing to do" in capsys.readouterr().out
    assert [version["display_name"] for version in server.versions.values()] == [compiled[1]]
    for seed in ("1", "2"):
        again = subprocess.run(
            [sys.executable, "-m", "pipelines", "compile", "--output", str(tmp_path / "again.yaml")],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert compiled[1] in again.stdout
    assert write_package(tmp_path / "other.yaml", "cpu") != compiled[1]


def test_submit_starts_a_run_with_the_given_parameters(server: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    main(["submit", *VALUES, "--experiment", "trial", "--name", "first"])
    (run,) = server.runs.values()
    assert run["display_name"] == "first"
    assert run["service_account"] == "streetvision-runner"
    assert run["runtime_config"]["parameters"] == {
        "data": "s3://streetvision/data", "backbone": "/models/dinov2", "epochs": 5,
    }  # fmt: skip
    assert server.experiments[run["experiment_id"]]["display_name"] == "trial"
    shown = capsys.readouterr().out
    assert f"{server.host}/#/runs/details/{run['run_id']}" in shown
    assert TOKEN not in shown


@pytest.mark.parametrize(("state", "code"), [("SUCCEEDED", 0), ("FAILED", 1), ("CANCELED", 2)])
def test_waiting_shows_every_change_and_ends_with_the_outcome(
    server: KfpServer, capsys: pytest.CaptureFixture[str], state: str, code: int
) -> None:
    server.script = [
        _states("RUNNING", run="RUNNING"),
        _states("SUCCEEDED", "RUNNING", run="RUNNING"),
        _states("SUCCEEDED", state, run=state),
    ]
    with pytest.raises(SystemExit) as caught:
        main(["submit", *VALUES, "--wait", "--poll", "0.01"])
    assert caught.value.code == code
    lines = [line.split()[1:3] for line in capsys.readouterr().out.splitlines() if line[2:3] == ":"]
    assert lines == [
        ["fingerprint-source", "RUNNING"],
        ["fingerprint-source", "SUCCEEDED"],
        ["ingest-dataset", "RUNNING"],
        ["ingest-dataset", state],
    ]


def test_waiting_ends_at_the_timeout(server: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["submit", *VALUES, "--wait", "--poll", "0.01", "--timeout", "0.05"])
    assert caught.value.code == 124
    assert "still PENDING after 0.05 s" in capsys.readouterr().out


def test_a_schedule_is_created_replaced_and_changed_by_name(
    server: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["schedule", "create", "nightly", "--cron", "0 0 3 * * *", *VALUES])
    main(["schedule", "create", "hourly", "--every", "3600", "--disabled", *VALUES])
    main(["schedule", "create", "weekly", "--every", "604800", *VALUES])
    main(["schedule", "create", "nightly", "--cron", "0 30 4 * * *", *VALUES])
    out = capsys.readouterr().out
    assert "schedule nightly created" in out
    assert "schedule nightly replaced" in out
    main(["schedule", "list"])
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()] == [
        ["hourly", "DISABLED"], ["nightly", "ENABLED"], ["weekly", "ENABLED"],
    ]  # fmt: skip
    nightly = next(item for item in server.recurring.values() if item["display_name"] == "nightly")
    assert nightly["trigger"] == {"cron_schedule": {"cron": "0 30 4 * * *"}}
    assert (nightly["max_concurrency"], nightly["no_catchup"]) == (1, True)
    main(["schedule", "disable", "nightly"])
    assert server.recurring[nightly["recurring_run_id"]]["status"] == "DISABLED"
    main(["schedule", "enable", "nightly"])
    assert server.recurring[nightly["recurring_run_id"]]["status"] == "ENABLED"
    main(["schedule", "delete", "nightly"])
    assert nightly["recurring_run_id"] not in server.recurring
    code, line = _fails(capsys, "schedule", "delete", "nightly")
    assert code == 42
    assert "no schedule 'nightly'; there are: hourly, weekly" in line


def test_status_and_logs_of_the_last_run(server: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    main(["submit", *VALUES, "--name", "mine"])
    server.script = [_states("SUCCEEDED", "FAILED", run="FAILED")]
    capsys.readouterr()
    main(["status"])
    out = capsys.readouterr().out
    assert "mine (run-" in out
    assert "): FAILED" in out
    assert "ingest-dataset       FAILED         30 s" in out
    main(["logs", "--step", "ingest-dataset"])
    assert capsys.readouterr().out == "== ingest-dataset\nwhat pod-ingest-dataset wrote\n\n"
    code, line = _fails(capsys, "logs", "--step", "ingest")
    assert (code, "it has: fingerprint-source, ingest-dataset" in line) == (42, True)


@pytest.mark.parametrize(
    "verb", [["upload"], ["submit", *VALUES], ["schedule", "create", "n", "--every", "60", *VALUES]]
)
def test_a_dry_run_sends_nothing(server: KfpServer, capsys: pytest.CaptureFixture[str], verb: list[str]) -> None:
    main([*verb, "--dry-run"])
    document = json.loads(capsys.readouterr().out)
    assert document["pipeline"] == "streetvision-stage1"
    assert document["version"].startswith("a6000x2-")
    assert server.requests == []


def test_wrong_and_missing_tokens_are_told(
    server: KfpServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for token in ("another", ""):
        monkeypatch.setenv("STREETVISION_KFP_TOKEN", token)
        code, line = _fails(capsys, "upload")
        assert code == 42
        assert f"{server.host} refused to look whether the API is there: HTTP 401" in line
        assert "set STREETVISION_KFP_TOKEN or STREETVISION_KFP_COOKIE" in line
    assert not server.versions


def test_a_session_cookie_opens_and_a_login_page_is_told(
    server: KfpServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server.token, server.cookie = None, "authservice_session=abc"
    monkeypatch.delenv("STREETVISION_KFP_TOKEN")
    monkeypatch.setenv("STREETVISION_KFP_COOKIE", "authservice_session=abc")
    main(["upload"])
    assert len(server.versions) == 1
    server.login_page = True
    code, line = _fails(capsys, "upload")
    assert (code, "answers with a page instead of the API: a login is asked for" in line) == (42, True)


def test_an_unreachable_host_is_named_and_may_be_tried_again(
    capsys: pytest.CaptureFixture[str], server: KfpServer
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    code, line = _fails(capsys, "upload", "--host", f"http://127.0.0.1:{port}")
    assert code == 1
    assert f"http://127.0.0.1:{port} cannot be reached" in line
    assert "Connection refused" in line


def test_a_missing_or_odd_host_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], server: KfpServer
) -> None:
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT")
    assert "set KF_PIPELINES_ENDPOINT" in _fails(capsys, "upload")[1]
    assert "has no http:// or https://" in _fails(capsys, "upload", "--host", "kubeflow:8080")[1]


def test_a_name_clash_is_told(server: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.fail_next = [RefusedError(409, "pipeline streetvision-stage1 already exists")]
    code, line = _fails(capsys, "upload")
    assert code == 42
    assert "HTTP 409 pipeline streetvision-stage1 already exists; the name is taken" in line


def test_a_foreign_namespace_is_told(server: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    code, line = _fails(capsys, "upload", "--namespace", "another")
    assert (code, "HTTP 403 no access to namespace 'another'" in line, "--namespace" in line) == (42, True, True)


def test_a_broken_server_is_a_transient_error(server: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.fail_next = [RefusedError(500, "database is locked")]
    code, line = _fails(capsys, "upload")
    assert (code, "HTTP 500 database is locked; see the API server's log" in line) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["submit", "--param", "epoch=5"], "unknown key 'epoch', did you mean 'epochs'?"),
        (["submit", "--param", "epochs=0"], "epochs=0 must be >= 1"),
        (["submit", "--param", "n_gpus=many"], "n_gpus='many' must be a whole number"),
        (["submit", "--param", "data=x"], "backbone is not set"),
        (["schedule", "create", "n", "--cron", "0 3 * * *", *VALUES], "six fields"),
        (["schedule", "create", "n", "--every", "5", *VALUES], "at least 60 seconds"),
        (["status", "run-99"], "HTTP 404 run run-99 not found"),
    ],
)
def test_wrong_requests_are_refused_with_what_to_do(
    server: KfpServer, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    code, line = _fails(capsys, *arguments)
    assert code == 42
    assert says in line
    assert not server.runs


def test_a_kubeflow_of_one_user_is_asked_without_namespace(
    monkeypatch: pytest.MonkeyPatch, compiled: tuple[Path, str], server: KfpServer
) -> None:
    with kfp_server(multi_user=False) as single:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", single.host)
        main(["submit", *VALUES])
        assert len(single.runs) == 1


@pytest.mark.parametrize("verb", ["images", "upload", "submit", "schedule", "status", "logs", "download", "compile"])
def test_every_verb_explains_itself(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main([verb, "--help"])
    assert caught.value.code == 0
    assert f"usage: python -m pipelines {verb}" in capsys.readouterr().out

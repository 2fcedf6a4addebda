"""The verbs that change something, against a server with the models of kfp-server-api.

tests/pipelines/kfp_server.py stands for KFP's API; tests/pipelines/test_kfp_server.py checks its
answers against the recorded ones.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.shared.storage import Store, StoreSettings
from pipelines import package as package_module
from pipelines.cli.app import main
from pipelines.names import CONTINUOUS, DRIFT, LABELLING, PIPELINES
from pipelines.package import write_package
from pipelines.parameters import Variant
from pipelines.resources import Profile, load_profile
from pipelines.sources import ROOT
from tests.pipelines.argo_tasks import task_details
from tests.pipelines.kfp_server import KfpServer, RefusedError, kfp_server, recorded
from tests.pipelines.kubernetes_server import kubernetes_server, write_kubeconfig
from tests.recordings.replay import add_run

VALUES = [
    "--param",
    "data=s3://streetvision/data",
    "--param",
    "backbone=s3://streetvision/dinov2",
    "--param",
    "epochs=5",
]
TOKEN = "token-that-nobody-must-see"
PIPELINE = "streetvision-stage1"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The package and its version, compiled once."""
    file = tmp_path_factory.mktemp("package") / "stage1.yaml"
    return file, write_package(file, load_profile("a6000x2"), Variant())


@pytest.fixture
def server(
    monkeypatch: pytest.MonkeyPatch, compiled: tuple[Path, str], tmp_path: Path
) -> Iterator[KfpServer]:
    """A server of a multi-user Kubeflow, its address and token in the environment.

    No store, no Kubernetes.
    """

    def package(profile: Profile, variant: Variant) -> tuple[Path, str]:
        return Path(shutil.copy(compiled[0], tmp_path / "stage1.yaml")), compiled[1]

    monkeypatch.setattr(package_module, "package", package)
    with kfp_server(token=TOKEN) as running:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", running.host)
        monkeypatch.setenv("STREETVISION_KFP_TOKEN", TOKEN)
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "no-cluster"))
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


def _look(steps: dict[str, str], state: str = "RUNNING") -> dict[str, Any]:
    """What a run has become: one entry of the server's script."""
    return {
        "state": state,
        "run_details": {"task_details": task_details("wf-1", steps, root=state)},
    }


# upload


def test_the_same_content_is_one_version(
    server: KfpServer,
    compiled: tuple[Path, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["upload"])
    assert f"version {compiled[1]} uploaded" in capsys.readouterr().out
    main(["upload"])
    assert f"version {compiled[1]} is there already, nothing to do" in capsys.readouterr().out
    assert [version["display_name"] for version in server.versions.values()] == [compiled[1]]
    again = subprocess.run(
        [sys.executable, "-m", "pipelines", "compile", "--output", str(tmp_path / "again.yaml")],
        env={**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert compiled[1] in again.stdout
    assert write_package(tmp_path / "other.yaml", load_profile("cpu"), Variant()) != compiled[1]


def test_another_name_of_the_pipeline_is_part_of_what_is_uploaded(server: KfpServer) -> None:
    main(["upload", "--pipeline", "trial"])
    assert [pipeline["display_name"] for pipeline in server.pipelines.values()] == ["trial"]
    (spec,) = server.packages.values()
    assert (
        spec["pipelineInfo"]["name"] == "trial"
    )  # of KFP's cache keys, and of the folder of its runs


# submit


def test_submit_starts_a_run_with_the_given_parameters(
    server: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["submit", *VALUES, "--experiment", "trial", "--name", "first"])
    (run,) = server.runs.values()
    assert run["display_name"] == "first"
    assert run["service_account"] == "streetvision-runner"
    assert run["runtime_config"]["parameters"] == {
        "data": "s3://streetvision/data",
        "backbone": "s3://streetvision/dinov2",
        "epochs": "5",
    }
    assert server.experiments[run["experiment_id"]]["display_name"] == "trial"
    shown = capsys.readouterr().out
    assert f"{server.host}/#/runs/details/{run['run_id']}" in shown
    assert "data and backbone not looked for: object store: set STREETVISION_S3_ENDPOINT" in shown
    assert TOKEN not in shown


def test_a_root_that_is_given_goes_with_the_run_and_the_schedule(server: KfpServer) -> None:
    main(["submit", *VALUES, "--root", "s3://streetvision/runs"])
    main(
        [
            "schedule",
            "create",
            "nightly",
            "--every",
            "60",
            "--root",
            "s3://streetvision/runs",
            *VALUES,
        ]
    )
    for started in (*server.runs.values(), *server.recurring.values()):
        assert started["runtime_config"]["pipeline_root"] == "s3://streetvision/runs"
    main(["submit", *VALUES])
    assert "pipeline_root" not in list(server.runs.values())[-1]["runtime_config"]


@pytest.mark.parametrize(
    ("state", "step", "code", "outcome"),
    [
        ("SUCCEEDED", "done", 0, "succeeded"),
        ("FAILED", "failed", 1, "failed"),
        ("CANCELED", "failed", 2, "cancelled"),
    ],
)
def test_waiting_shows_every_change_and_ends_with_the_outcome(
    server: KfpServer,
    capsys: pytest.CaptureFixture[str],
    state: str,
    step: str,
    code: int,
    outcome: str,
) -> None:
    server.script = [
        _look({"configure": "running"}),
        _look({"configure": "done", "ingest-dataset": "running"}),
        _look({"configure": "done", "ingest-dataset": step}, state),
    ]
    with pytest.raises(SystemExit) as caught:
        main(["submit", *VALUES, "--wait", "--poll", "0.01"])
    assert caught.value.code == code
    lines = capsys.readouterr().out.splitlines()
    changed = [line.split()[1:] for line in lines if line[2:3] == ":" and "note:" not in line]
    assert [change for change in changed if change[0] in ("configure", "ingest-dataset")] == [
        ["configure", "running"],
        ["configure", "done"],
        ["ingest-dataset", "running"],
        ["ingest-dataset", step],
    ]
    assert [line for line in lines if line.startswith("run run-") and outcome in line]


def test_waiting_ends_at_the_timeout(server: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["submit", *VALUES, "--wait", "--poll", "0.01", "--timeout", "0.05"])
    assert caught.value.code == 124
    assert "still pending after 0.05 s" in capsys.readouterr().out


def test_the_demo_is_copied_to_the_bucket_of_the_root_and_run_from_there(
    server: KfpServer,
    s3: StoreSettings,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from pipelines.demo import dataset
    from pipelines.upload_data import demo

    Store(s3).make_bucket("demo-runs")
    for name, value in s3.to_environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    # A smaller demo: what it consists of is tested elsewhere.
    monkeypatch.setattr(
        demo, "write_demo_data", lambda folder: dataset.write_demo_data(folder, n_images=20)
    )
    main(["submit", "--demo", "--root", "s3://demo-runs/runs", "--param", "epochs=3"])
    (run,) = server.runs.values()
    assert run["runtime_config"]["parameters"] == {
        "recipe": "demo",
        "data": "s3://demo-runs/streetvision/demo/data",
        "backbone": "s3://demo-runs/streetvision/demo/backbone",
        "epochs": "3",
    }
    assert Store(s3).first("demo-runs", "streetvision/demo/data/") is not None
    assert "demo: " in capsys.readouterr().out


# schedule


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
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["hourly", "DISABLED", "3600", "s"],
        ["nightly", "ENABLED", "0", "30", "4", "*", "*", "*"],
        ["weekly", "ENABLED", "604800", "s"],
    ]
    nightly = next(item for item in server.recurring.values() if item["display_name"] == "nightly")
    assert nightly["trigger"] == {"cron_schedule": {"cron": "0 30 4 * * *"}}
    assert (nightly["max_concurrency"], nightly["no_catchup"]) == ("1", True)
    main(["schedule", "disable", "nightly"])
    assert server.recurring[nightly["recurring_run_id"]]["status"] == "DISABLED"
    main(["schedule", "enable", "nightly"])
    assert server.recurring[nightly["recurring_run_id"]]["status"] == "ENABLED"
    main(["schedule", "delete", "nightly"])
    assert nightly["recurring_run_id"] not in server.recurring
    code, line = _fails(capsys, "schedule", "delete", "nightly")
    assert code == 42
    assert (
        "no schedule 'nightly' of pipeline 'streetvision-stage1' in namespace 'streetvision'; there"
        " are: hourly, " in (line)
    )


def test_schedules_of_another_pipeline_are_left_alone(
    server: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["schedule", "create", "nightly", "--every", "60", *VALUES])
    main(["schedule", "create", "nightly", "--every", "90", "--pipeline", "trial", *VALUES])
    assert "replaced" not in capsys.readouterr().out
    main(["schedule", "delete", "nightly", "--pipeline", "trial"])
    assert [item["trigger"]["periodic_schedule"] for item in server.recurring.values()] == [
        {"interval_second": "60"}
    ]
    capsys.readouterr()
    main(["schedule", "list", "--pipeline", "never-uploaded"])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("pipeline", "values", "last_task"),
    [
        (CONTINUOUS, VALUES, "promote-bundle"),
        (DRIFT, ["--param", "images=s3://streetvision/tonight"], "detect-drift"),
        (LABELLING, ["--param", "images=s3://streetvision/tonight"], "select-for-labelling"),
    ],
)
def test_each_recurring_pipeline_is_scheduled_under_its_own_name(
    server: KfpServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    pipeline: str,
    values: list[str],
    last_task: str,
) -> None:
    """The package is the pipeline's own, not the stage 1 of the other tests."""
    monkeypatch.setattr(
        package_module,
        "package",
        lambda profile, variant: (
            tmp_path / "own.yaml",
            write_package(tmp_path / "own.yaml", profile, variant),
        ),
    )
    nightly = ["schedule", "create", "nightly", "--cron", "0 0 3 * * *", "--pipeline", pipeline]
    main([*nightly, *values])
    assert capsys.readouterr().out.splitlines()[-1] == "schedule nightly created"

    (item,) = server.recurring.values()
    assert item["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * *"}}
    assert (item["max_concurrency"], item["no_catchup"]) == ("1", True)
    assert item["runtime_config"]["parameters"] == dict(
        value.split("=") for value in values if "=" in value
    )
    reference = item["pipeline_version_reference"]
    assert server.pipelines[reference["pipeline_id"]]["display_name"] == PIPELINES[pipeline]
    spec = server.packages[reference["pipeline_version_id"]]
    assert spec["pipelineInfo"]["name"] == PIPELINES[pipeline]
    assert last_task in spec["root"]["dag"]["tasks"]

    # Of stage 1 there is no such schedule.
    main(["schedule", "list"])
    assert capsys.readouterr().out == ""
    main(["schedule", "list", "--pipeline", pipeline])
    assert capsys.readouterr().out.split()[:2] == ["nightly", "ENABLED"]


@pytest.mark.parametrize("mode", ["api", "api-multi-user"])
def test_the_recorded_schedules_are_listed(
    server: KfpServer, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    (item,) = recorded(f"{mode}/{'recurring-runs' if mode == 'api' else 'recurring'}")[
        "recurringRuns"
    ]
    reference = item["pipeline_version_reference"]
    server.add_run({"run_id": "r", "pipeline_version_reference": reference}, PIPELINE)
    server.recurring[item["recurring_run_id"]] = item
    main(["schedule", "list"])
    when = ["0", "*", "*", "*", "*", "*"] if mode == "api" else ["60", "s"]
    assert capsys.readouterr().out.split() == [item["display_name"], "ENABLED", *when]


def _with_active_run(server: KfpServer) -> str:
    """A schedule whose recorded run is active; returns the run's id."""
    (item,) = recorded("api-multi-user/recurring")["recurringRuns"]
    active = recorded("api-multi-user/runs-list")["runs"][1]
    assert active["recurring_run_id"] == item["recurring_run_id"]
    add_run(server, active)
    server.recurring[item["recurring_run_id"]] = item
    return str(active["run_id"])


def test_a_schedule_is_not_deleted_under_an_active_run(
    server: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _with_active_run(server)
    code, line = _fails(capsys, "schedule", "delete", "mu-s")
    assert code == 42
    assert f"schedule 'mu-s' has an active run, {run}: with the schedule Kubernetes removes" in line
    assert "KFP shows the run as RUNNING for ever" in line
    assert f"cancel it first: python -m pipelines cancel {run}" in line
    assert server.recurring
    main(["schedule", "delete", "mu-s", "--force"])
    assert not server.recurring
    assert f"run {run} ends with it" in capsys.readouterr().out


def test_a_schedule_whose_runs_have_ended_is_deleted(server: KfpServer) -> None:
    run = _with_active_run(server)
    server.runs[run]["state"] = "SUCCEEDED"
    main(["schedule", "delete", "mu-s"])
    assert not server.recurring


# what is refused


@pytest.mark.parametrize(
    "verb", [["upload"], ["submit", *VALUES], ["schedule", "create", "n", "--every", "60", *VALUES]]
)
def test_a_dry_run_sends_nothing(
    server: KfpServer, capsys: pytest.CaptureFixture[str], verb: list[str]
) -> None:
    main([*verb, "--dry-run"])
    document = json.loads(capsys.readouterr().out)
    assert document["pipeline"] == "streetvision-stage1"
    assert document["version"].startswith("a6000x2-")
    assert server.requests == []


def test_wrong_and_missing_tokens_are_told(
    server: KfpServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for token, cause in (
        ("another", "invalid bearer token"),
        ("", "there is no user identity header"),
    ):
        monkeypatch.setenv("STREETVISION_KFP_TOKEN", token)
        code, line = _fails(capsys, "upload")
        assert code == 42
        assert f"{server.host} refused to upload version" in line
        assert (
            f"HTTP 401 {cause}; make a token: export STREETVISION_KFP_TOKEN=$(kubectl create token"
            in line
        )
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
    assert (code, "answers with a page instead of the API: a login is asked for" in line) == (
        42,
        True,
    )


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
    assert code == 42
    assert "may not list pipelines in namespace 'another'" in line
    assert (
        "(--namespace): export STREETVISION_KFP_TOKEN=$(kubectl create token default-editor -n"
        " another" in line
    )


def test_a_broken_server_is_a_transient_error(
    server: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.fail_next = [RefusedError(500, "database is locked")]
    code, line = _fails(capsys, "upload")
    assert (code, "HTTP 500 database is locked; see the API server's log" in line) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["submit", "--param", "epoch=5"], "'epoch'"),
        (["submit", *VALUES, "--param", "epochs=0"], "epochs=0 must be >= 1"),
        (["submit", "--param", "data=s3://streetvision/data"], "backbone is not set"),
        (
            ["submit", *VALUES, "--param", "data=photos"],
            "local folders are not available inside pods",
        ),
        (["upload", "--pipeline", "Not A Name"], "--pipeline 'Not A Name' must be lower case"),
        (["schedule", "create", "n", "--cron", "0 3 * * *", *VALUES], "six fields"),
        (["schedule", "create", "n", "--every", "5", *VALUES], "at least 60 seconds"),
        (["status", "run-99"], "HTTP 404 Run run-99 not found"),
        (["status"], "no pipeline 'streetvision-stage1' in namespace 'streetvision'"),
    ],
)
def test_wrong_requests_are_refused_with_what_to_do(
    server: KfpServer, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    code, line = _fails(capsys, *arguments)
    assert code == 42
    assert says in line
    assert not server.runs


def test_what_the_namespace_lacks_is_refused_before_anything_is_sent(
    server: KfpServer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    with kubernetes_server() as kubernetes:
        secret = {"accesskey": "a", "secretkey": "b"}
        kubernetes.hold_ready_namespace(
            "streetvision", "bucket", "mlpipeline-minio-artifact", secret
        )
        del kubernetes.answers[
            "/api/v1/namespaces/streetvision/serviceaccounts/streetvision-runner"
        ]
        write_kubeconfig(tmp_path / "config", kubernetes.host)
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
        code, line = _fails(capsys, "submit", *VALUES)
    assert code == 42
    assert "streetvision-runner is not there" in line
    assert not server.runs
    assert not server.versions


@pytest.mark.parametrize(
    ("verb", "kept"),
    [(["submit"], "runs"), (["schedule", "create", "nightly", "--every", "3600"], "recurring")],
)
def test_a_run_is_given_the_root_of_a_store_of_the_pipelines_own(
    server: KfpServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, verb: list[str], kept: str
) -> None:
    with kubernetes_server() as kubernetes:
        secret = {"accesskey": "a", "secretkey": "b"}
        kubernetes.hold_ready_namespace(
            "streetvision", "bucket", "mlpipeline-minio-artifact", secret
        )
        settings = {
            "STREETVISION_S3_ENDPOINT": "m:9000",
            "STREETVISION_PIPELINE_ROOT": "minio://own/runs",
        }
        kubernetes.hold("streetvision", "configmaps", "streetvision-store", data=settings)
        write_kubeconfig(tmp_path / "config", kubernetes.host)
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
        main([*verb, *VALUES])
    (started,) = getattr(server, kept).values()
    assert started["runtime_config"]["pipeline_root"] == "minio://own/runs"


def test_a_kubeflow_of_one_user_is_asked_without_namespace(
    monkeypatch: pytest.MonkeyPatch, server: KfpServer
) -> None:
    with kfp_server(multi_user=False) as single:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", single.host)
        main(["submit", *VALUES])
        assert len(single.runs) == 1


@pytest.mark.parametrize(
    "verb",
    [
        "images",
        "upload",
        "upload-data",
        "submit",
        "schedule",
        "status",
        "logs",
        "wait",
        "cancel",
        "open",
        "runs",
        "download",
        "compile",
        "doctor",
        "smoke",
    ],
)
def test_every_verb_explains_itself(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main([verb, "--help"])
    assert caught.value.code == 0
    assert f"Usage: python -m pipelines {verb}" in capsys.readouterr().out

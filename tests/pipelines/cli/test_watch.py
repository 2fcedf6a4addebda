"""`status` and `wait` on the recorded answers of a real back end.

KFP's API is the fake server with recorded runs, the store a real S3 server with the recorded logs
at their recorded keys (tests/recordings/replay.py says what is made up), Kubernetes the fake of
tests/pipelines/run_objects.py.
"""

import json
import re
from typing import Any

import pytest

from pipelines.cli.app import main
from pipelines.sources import ROOT
from tests.pipelines.cli.recorded import (
    BAD,
    NOIF,
    POLL,
    RUNS,
    add_made,
    add_recorded,
    exit_code,
    lines_of,
)
from tests.pipelines.kfp_server import KfpServer, RefusedError, kfp_server, recorded
from tests.pipelines.kubernetes_server import KubernetesServer
from tests.pipelines.run_objects import RunObjects
from tests.recordings import replay
from tests.recordings.replay import add_run


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("name", RUNS)
def test_status_has_one_line_for_each_step(
    server: KfpServer, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    lines = lines_of(capsys, "status", add_recorded(server, name))
    steps = [
        line.split()[0] for line in lines if line.startswith("  ") and not line.startswith("   ")
    ]
    assert [step for step in dict.fromkeys(steps) if step in replay.STEPS] == list(replay.STEPS)
    assert not {"executor", "root", "exit-handler-1", "iteration-item"} & set(steps)
    assert not [
        line
        for line in lines
        if "-driver" in line or "(0)" in line or "1970" in line or " -" in line
    ]


@pytest.mark.usefixtures("store")
def test_status_tells_the_typed_message_of_a_failed_step(
    server: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = lines_of(capsys, "status", add_recorded(server, "run-bad-data-path"))
    assert lines[0] == "bad (8f17e1de-7d5e-47d7-ac1c-11b54c05351a): failed after 1 min 28 s"
    assert lines[1].split() == ["fingerprint-source", "failed", "42", "s"]
    assert lines[2].strip() == BAD
    assert lines[3].split() == ["ingest-dataset", "skipped"]


def test_status_works_without_store_and_kubernetes_and_says_why_no_reason_is_shown(
    server: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = lines_of(capsys, "status", add_recorded(server, "run-bad-data-path"))
    assert lines[1].split() == ["fingerprint-source", "failed", "42", "s"]
    notes = [line for line in lines if line.startswith("note: ")]
    assert len(notes) == 2
    assert (
        "no logs of the object store are shown: object store: set STREETVISION_S3_ENDPOINT"
        in notes[0]
    )
    assert "nothing of the pods is shown: no cluster is configured" in notes[1]


@pytest.mark.usefixtures("store")
def test_an_unreachable_store_is_one_line(
    server: KfpServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = add_recorded(server, "run-bad-data-path")
    lines = lines_of(capsys, "status", run, "--root", "s3://no-such-bucket/runs")
    assert "NoSuchBucket" in "".join(line for line in lines if line.startswith("note: no logs"))


@pytest.mark.usefixtures("store")
def test_a_store_whose_port_is_not_forwarded_is_one_line_for_all_steps(
    server: KfpServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREETVISION_S3_ENDPOINT", "127.0.0.1:9")
    main(["logs", add_recorded(server, "run-succeeded")])
    notes = [line for line in capsys.readouterr().err.splitlines() if "object store" in line]
    assert notes == [
        "note: no logs of the object store are shown: object store: 127.0.0.1:9 cannot be reached"
        " from here (Connection refused); forward its port and give --store-endpoint localhost:PORT"
    ]


def test_status_of_a_healthy_run_asks_neither_store_nor_kubernetes_and_remarks_nothing(
    server: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("run-running", "run-succeeded", "run-all-cached", "run-terminated"):
        assert not [
            line
            for line in lines_of(capsys, "status", add_recorded(server, name))
            if "note" in line
        ]


def test_a_failed_driver_is_told_with_what_its_pod_wrote(
    server: KfpServer, objects: RunObjects, capsys: pytest.CaptureFixture[str]
) -> None:
    objects.add_recorded_pods()
    # What the recorded pod wrote was not recorded but seen; the header is glog's.
    objects.set_log(
        "streetvision-stage1-rsxqf-system-dag-driver-3576003402",
        "F1127 01:35:58.000000       7 main.go:127] processing OneOf: No successful task found\n",
    )
    lines = lines_of(capsys, "status", add_recorded(server, "run-oneof-failed"))
    assert lines[-1] == "  driver of for-loop-6: processing OneOf: No successful task found"


@pytest.mark.usefixtures("store")
def test_a_step_that_failed_before_it_began_is_told_by_its_pod(
    server: KfpServer, objects: RunObjects, capsys: pytest.CaptureFixture[str]
) -> None:
    objects.add_recorded_pods()
    objects.set_log(
        "streetvision-noif-h8drb-metadata-0-3-retry-system-container-impl-2974074217",
        "F1127 01:46:36.000000       7 main.go:59] failed to get bucket when downloading input"
        " artifact\n",
    )
    lines = lines_of(capsys, "status", add_recorded(server, "run-collected-failed"))
    assert "      failed to get bucket when downloading input artifact" in lines


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (
            {
                "conditions": [
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "reason": "Unschedulable",
                        "message": "0/1 nodes are available: 1 Insufficient cpu.",
                    }
                ]
            },
            "0/1 nodes are available: 1 Insufficient cpu.",
        ),
        (
            {
                "containerStatuses": [
                    {
                        "name": "main",
                        "image": "i:1",
                        "imageID": "",
                        "ready": False,
                        "restartCount": 0,
                        "state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}},
                    }
                ]
            },
            "main (i:1): ErrImagePull: not found",
        ),
    ],
)
def test_status_tells_why_a_step_waits(
    server: KfpServer,
    objects: RunObjects,
    capsys: pytest.CaptureFixture[str],
    status: dict[str, Any],
    reason: str,
) -> None:
    run = add_made(server, {"configure": "done", "train/train-baseline": "pending"})
    objects.add_pod(
        "wf-1",
        "wf-1(0).root(0).train(0).train-baseline(0).executor(0)",
        {"phase": "Pending", **status},
    )
    objects.add_workflow("wf-1", {})
    lines = lines_of(capsys, "status", run)
    assert lines[2].split() == ["train-baseline", "waiting"]
    assert lines[3] == f"      {reason}"


def test_a_full_quota_is_told(
    server: KfpServer, objects: RunObjects, capsys: pytest.CaptureFixture[str]
) -> None:
    run = add_made(server, {"configure": "done", "train/train-baseline": "pending"})
    node = "wf-1(0).root(0).train(0).train-baseline(0).executor(0)"
    message = 'pods "x" is forbidden: exceeded quota: streetvision'
    objects.add_pod("wf-1", "wf-1(0).root(0).configure(0).executor(0)", {"phase": "Succeeded"})
    objects.add_workflow(
        "wf-1", {"nodes": {"n": {"name": node, "phase": "Pending", "message": message}}}
    )
    assert f"      {message}" in lines_of(capsys, "status", run)


def test_a_run_whose_first_driver_hangs_says_why(
    server: KfpServer, objects: RunObjects, capsys: pytest.CaptureFixture[str]
) -> None:
    # Recorded in multi-user mode: the Secret that Argo's log archive mounts was missing.
    add_run(server, recorded("api-multi-user/run-hanging"))
    workflow = "streetvision-stage1-7dn8z"
    waiting = {
        "name": "init",
        "image": "i",
        "imageID": "",
        "ready": False,
        "restartCount": 0,
        "state": {"waiting": {"reason": "PodInitializing"}},
    }
    pod = objects.add_pod(
        workflow,
        f"{workflow}(0).root-driver(0)",
        {"phase": "Pending", "initContainerStatuses": [waiting]},
    )
    objects.add_event(pod, "FailedMount", 'secret "mlpipeline-minio-artifact" not found')
    objects.add_workflow(workflow, {})
    lines = lines_of(capsys, "status", "51cb881c-5141-45c7-bc9a-519a3a882095")
    assert lines[-2:] == [
        "  no step has started",
        '  driver of root: FailedMount: secret "mlpipeline-minio-artifact" not found',
    ]


def test_a_run_whose_workflow_was_removed_is_told(
    server: KfpServer, objects: RunObjects, capsys: pytest.CaptureFixture[str]
) -> None:
    run = add_recorded(server, "run-running")
    objects.remove_pods("streetvision-stage1-jlvrk")
    notes = [line for line in lines_of(capsys, "status", run) if line.startswith("note: ")]
    assert len(notes) == 1
    assert "namespace 'kubeflow' has no Workflow 'streetvision-stage1-jlvrk'" in notes[0]
    assert "running for ever" in notes[0]


def test_kubernetes_that_refuses_is_one_quiet_line(
    server: KfpServer,
    objects: RunObjects,
    kubernetes: KubernetesServer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = add_made(server, {"configure": "pending"})
    path = "/api/v1/namespaces/kubeflow/pods?workflows.argoproj.io/workflow=wf-1"
    kubernetes.answers[path] = 403
    assert [line for line in lines_of(capsys, "status", run) if "note" in line] == [
        "note: nothing of the pods is shown: Kubernetes answers HTTP 403 Forbidden"
    ]


def test_the_newest_run_of_this_pipeline_is_shown_not_that_of_another(
    server: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    add_recorded(server, "run-running", "run-oneof-failed", "run-terminated", "run-bad-data-path")
    assert lines_of(capsys, "status")[0].startswith("second (")
    assert lines_of(capsys, "status", *NOIF)[0].startswith("terminate (")


def test_a_pipeline_that_kfp_does_not_have_is_told(
    server: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    add_recorded(server, "run-terminated")
    assert exit_code("status") == 42
    error = capsys.readouterr().err
    assert (
        "no pipeline 'streetvision-stage1' in namespace 'kubeflow' (the default); there are:"
        " streetvision-noif" in error
    )
    assert "upload it: python -m pipelines upload" in error


def test_a_pipeline_without_runs_is_told(
    server: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    add_recorded(server, "run-running")
    server.runs.clear()
    assert exit_code("status") == 42
    assert (
        "has no run in namespace 'kubeflow'; start one: python -m pipelines submit"
        in capsys.readouterr().err
    )


@pytest.mark.usefixtures("store")
def test_status_as_json(server: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = lines_of(capsys, "status", add_recorded(server, "run-bad-data-path"), "--json")
    document = json.loads(line)
    assert (document["state"], document["seconds"]) == ("failed", 88)
    assert document["failure"] == f"fingerprint-source: {BAD}"
    step = document["steps"][0]
    assert (step["name"], step["state"], step["seconds"], step["note"]) == (
        "fingerprint-source",
        "failed",
        42,
        BAD,
    )
    assert len(document["steps"]) == len(replay.STEPS)


def test_status_is_watched_until_the_end(
    server: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    run = add_recorded(server, "run-all-cached-not-yet-reported")
    server.script = [RUNS["run-all-cached-not-yet-reported"], RUNS["run-all-cached"]]
    heads = [line for line in lines_of(capsys, "status", run, "--watch", *POLL) if run in line]
    assert len(heads) == 2
    assert "): running" in heads[0]
    assert heads[1].endswith("): succeeded in 1 min 55 s")


def test_a_version_that_kfp_no_longer_has_leaves_the_order_of_starts(
    server: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    run = add_recorded(server, "run-running")
    server.versions.clear()
    assert [line.split()[0] for line in lines_of(capsys, "status", run)[1:]] == [
        "fingerprint-source",
        "ingest-dataset",
        "split-dataset",
    ]


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("name", "code", "last"),
    [
        ("run-succeeded", 0, "succeeded in 10 min 32 s"),
        ("run-bad-data-path", 1, f"failed after 1 min 28 s: fingerprint-source: {BAD}"),
        ("run-terminated", 2, "cancelled after 1 min 23 s"),
        ("run-running", 124, "still running after 0 s"),
    ],
)
def test_waiting_ends_with_the_outcome_and_its_reason(
    server: KfpServer, capsys: pytest.CaptureFixture[str], name: str, code: int, last: str
) -> None:
    run = add_recorded(server, name)
    assert exit_code("wait", run, "--timeout", "0", "--poll", "0") == code
    assert [
        line
        for line in capsys.readouterr().out.splitlines()
        if line.startswith(f"run {run}") and last in line
    ]


@pytest.mark.parametrize(
    ("name", "code", "last"),
    [
        ("run-succeeded", 0, "succeeded"),
        ("run-bad-data-path", 1, "its log: python -m pipelines logs"),
    ],
)
def test_the_guide_s_line_of_a_crontab_tells_of_the_newest_night(
    server: KfpServer, capsys: pytest.CaptureFixture[str], name: str, code: int, last: str
) -> None:
    guide = (ROOT / "docs/guides/continuous.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"-m pipelines (wait .*?) >", guide)
    server.add_run(
        RUNS[name], "streetvision-continuous", replay.spec_of(replay.pipeline_of(RUNS[name]))
    )
    assert exit_code(*line.split()) == code
    assert last in capsys.readouterr().out.splitlines()[-1]


def test_waiting_prints_each_change_of_a_step_once(
    server: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    run = add_recorded(server, "run-running")
    server.script = [
        RUNS["run-running"],
        RUNS["run-running"],
        RUNS["run-running"],
        RUNS["run-succeeded"],
    ]
    assert exit_code("wait", run, *POLL) == 0
    lines = [line.split()[1:] for line in capsys.readouterr().out.splitlines() if line[2:3] == ":"]
    assert lines[:3] == [
        ["fingerprint-source", "done"],
        ["ingest-dataset", "done"],
        ["split-dataset", "running"],
    ]
    assert lines[3] == ["split-dataset", "done"]
    assert len(lines) == len(replay.STEPS) + 1


def test_waiting_for_a_run_that_kfp_reports_late_is_no_error(
    server: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    run = add_recorded(server, "run-all-cached-not-yet-reported")
    late = RUNS["run-all-cached-not-yet-reported"]
    server.script = [late, late, RUNS["run-all-cached"]]
    assert exit_code("wait", run, *POLL) == 0
    assert "error" not in capsys.readouterr().out


def test_waiting_tells_why_a_step_waits(
    server: KfpServer, objects: RunObjects, capsys: pytest.CaptureFixture[str]
) -> None:
    run = add_made(server, {"configure": "pending"})
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "Insufficient cpu",
    }
    objects.add_pod(
        "wf-1",
        "wf-1(0).root(0).configure(0).executor(0)",
        {"phase": "Pending", "conditions": [condition]},
    )
    objects.add_workflow("wf-1", {})
    assert exit_code("wait", run, "--timeout", "0.05", *POLL) == 124
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1:] for line in lines[:-1]] == [
        ["configure", "waiting", "Insufficient", "cpu"]
    ]


def test_waiting_survives_a_back_end_that_is_away_for_a_moment(
    server: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    run = add_recorded(server, "run-succeeded")
    server.fail_next = [RefusedError(503, "upstream"), RefusedError(503, "upstream")]
    assert exit_code("wait", run, *POLL) == 0
    error = capsys.readouterr().err
    assert error.count("HTTP 503 upstream; see the API server's log; looking again") == 1


def test_a_token_that_expires_ends_the_waiting_with_the_command_for_another(
    capsys: pytest.CaptureFixture[str], server: KfpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with kfp_server(token="good") as api:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", api.host)
        monkeypatch.setenv("STREETVISION_KFP_TOKEN", "old")
        api.wrong_token = "runs-expired"
        assert exit_code("wait", "some-run") == 42
    assert (
        "service account token has expired; make a token: export STREETVISION_KFP_TOKEN=$(kubectl"
        " create token" in (capsys.readouterr().err)
    )


def test_waiting_for_the_newest_run_names_it(
    server: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    run = add_recorded(server, "run-succeeded")
    assert exit_code("wait") == 0
    assert capsys.readouterr().out.startswith(f"waiting for run {run}\n")


def test_a_version_that_kfp_does_not_tell_at_once_is_asked_for_again(
    server: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    run = add_recorded(server, "run-running")
    server.script = [RUNS["run-running"], RUNS["run-running"], RUNS["run-succeeded"]]
    server.fail_where = {"/versions/": [RefusedError(503, "upstream")]}
    exit_code("wait", run, *POLL)
    names = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line[2:3] == ":"]
    assert set(names) == set(replay.STEPS)

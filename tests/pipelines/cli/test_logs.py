"""`logs` on the recorded answers of a real back end.

KFP's API is the fake server with recorded runs, the store a real S3 server with the recorded logs
at their recorded keys (tests/recordings/replay.py says what is made up), Kubernetes the fake of
tests/pipelines/run_objects.py.
"""

import pytest

from pipelines.cli.app import main
from tests.pipelines.cli.recorded import (
    BAD,
    POLL,
    RUNS,
    add_recorded,
    exit_code,
    lines_of,
)
from tests.pipelines.kfp_server import KfpServer
from tests.pipelines.run_objects import RunObjects
from tests.recordings import replay


@pytest.mark.usefixtures("store")
def test_logs_come_from_the_store_in_the_order_of_the_graph(
    server: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = lines_of(capsys, "logs", add_recorded(server, "run-succeeded"))
    assert [line.removeprefix("== ") for line in lines if line.startswith("==")] == list(
        replay.STEPS
    )
    assert "full: training 129,474 of 129,538 parameters, 1 process(es)" in lines
    assert not [line for line in lines if "KFP Executor" in line or '"inputs"' in line]


@pytest.mark.usefixtures("store")
def test_the_log_of_one_step(server: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    run = add_recorded(server, "run-bad-data-path")
    assert lines_of(capsys, "logs", run, "--step", "fingerprint-source") == [
        "== fingerprint-source",
        BAD,
    ]
    assert lines_of(capsys, "logs", run, "--step", "evaluate") == ["== evaluate: did not run"]
    assert exit_code("logs", run, "--step", "fingerprint") == 42
    assert (
        "has no step 'fingerprint'; it has: fingerprint-source, ingest-dataset"
        in capsys.readouterr().err
    )


@pytest.mark.usefixtures("store")
def test_the_attempts_of_a_step_are_told_apart(
    server: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    run = add_recorded(server, "run-pod-deleted-then-process-killed")
    lines = lines_of(capsys, "logs", run, "--step", "train-baseline")
    assert lines[0] == "== train-baseline, attempt 2"
    cached = lines_of(capsys, "logs", run, "--step", "import-backbone")
    assert cached == [
        "== import-backbone: came from the cache; its log is with the run that made it"
    ]


@pytest.mark.usefixtures("store")
def test_the_log_of_a_running_step_comes_from_its_pod(
    server: KfpServer, objects: RunObjects, capsys: pytest.CaptureFixture[str]
) -> None:
    run = add_recorded(server, "run-running")
    node = "streetvision-stage1-jlvrk(0).root(0).exit-handler-1(0).split-dataset(0).executor(0)"
    pod = objects.add_pod("streetvision-stage1-jlvrk", node, {"phase": "Running"})
    # The recorded store has the log of the run's end; while it ran there was none.
    objects.set_log(pod, "splitting\n")
    lines = lines_of(
        capsys, "logs", run, "--step", "split-dataset", "--root", "s3://streetvision/none"
    )
    assert lines == ["== split-dataset", "splitting"]


@pytest.mark.usefixtures("store")
def test_logs_are_followed_from_pod_to_pod_until_the_run_ends(
    server: KfpServer, objects: RunObjects, capsys: pytest.CaptureFixture[str]
) -> None:
    run = add_recorded(server, "run-running")
    server.script = [RUNS["run-running"], RUNS["run-running"], RUNS["run-succeeded"]]
    node = "streetvision-stage1-jlvrk(0).root(0).exit-handler-1(0).split-dataset(0).executor(0)"
    objects.set_log(
        objects.add_pod("streetvision-stage1-jlvrk", node, {"phase": "Running"}), "splitting\n"
    )
    lines = lines_of(capsys, "logs", run, "--follow", *POLL)
    assert [line.removeprefix("== ") for line in lines if line.startswith("==")] == list(
        replay.STEPS
    )
    assert lines[lines.index("== split-dataset") + 1] == "splitting"


def test_following_without_kubernetes_says_what_is_missing(
    server: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        exit_code(
            "logs", add_recorded(server, "run-running"), "--follow", "--step", "split-dataset"
        )
        == 42
    )
    assert (
        "--follow reads the pod of split-dataset, and nothing of the pods is shown: no cluster is"
        in (capsys.readouterr().err)
    )


def test_logs_that_are_nowhere(server: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    main(["logs", add_recorded(server, "run-succeeded"), "--step", "evaluate"])
    shown = capsys.readouterr()
    assert shown.out == "== evaluate: no log is found, neither in the object store nor of a pod\n"
    assert shown.err.count("note: ") == 2

"""A TrainJob against a server that stands for a cluster, whose pods are processes here."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.shared.contracts.errors import TransientError
from components.shared.contracts.interrupts import SignalReceivedError
from components.shared.training.launch import kubernetes_api, train_job
from components.shared.training.launch.train_job import Ended, Outcome, Owner, run_train_job
from tests.components.shared.training.kubeflow_trainer import (
    JOBS,
    Cluster,
    cluster,
    template,
    wait_until,
)

OWNER = Owner("step-pod", "uid-1")
NAME = "streetvision-0123456789abcdef"
LEAVE = 'printf "%s" "$1" > $STREETVISION_TERMINATION_LOG; '


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster, looked at without long waits."""
    monkeypatch.setattr(train_job, "_POLL_SECONDS", 0.1)
    monkeypatch.setattr(kubernetes_api, "_RETRIES", False)
    with cluster(tmp_path) as running:
        yield running


def _run(server: Cluster, script: str, **changes: Any) -> Outcome:
    command = ["sh", "-c", script, "pod", '{"a": 1}']
    return run_train_job(
        server.api(), template() | changes, name=NAME, command=command, owner=OWNER
    )


def test_its_nodes_run_to_their_end_and_it_is_removed(
    server: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = _run(server, LEAVE + "echo node $PET_NODE_RANK of $PET_NNODES")
    assert outcome.succeeded
    assert [(pod.node, pod.exit_code, pod.message) for pod in outcome.pods] == [
        (0, 0, '{"a": 1}'),
        (1, 0, '{"a": 1}'),
    ]
    said = capsys.readouterr().out.splitlines()
    assert "node 0 of 2" in said
    assert "node 1 of 2" not in said
    assert not server.jobs
    assert server.requests[0] == f"DELETE {JOBS}/{NAME}"
    (created,) = server.created
    assert created["metadata"]["name"] == NAME
    assert created["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Pod", "name": "step-pod", "uid": "uid-1"}
    ]


def test_a_failed_node_is_told_with_what_it_left_and_its_last_lines(
    server: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    script = f"if [ $PET_NODE_RANK = 1 ]; then {LEAVE} echo broken; exit 42; fi; sleep 60"
    outcome = _run(server, script)
    assert outcome == Outcome(False, "jobset failed", (Ended(1, 42, "Error", '{"a": 1}'),))
    assert "node 1: broken" in capsys.readouterr().out
    assert not server.jobs


def test_every_line_of_node_0_is_shown_once_while_it_runs(
    server: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(server, "for i in 1 2 3 4 5 6; do echo line $i; sleep 0.1; done; sleep 0.3")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("line")]
    assert lines == [f"line {i}" for i in range(1, 7)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_step_removes_it(server: Cluster, number: signal.Signals) -> None:
    def interrupt() -> None:
        wait_until(server.pods)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(SignalReceivedError):
        _run(server, "sleep 60")
    thread.join()
    assert not server.jobs


def test_one_of_an_earlier_attempt_is_removed_first(server: Cluster) -> None:
    earlier = template(1) | {"metadata": {"name": NAME}}
    earlier["spec"]["trainer"]["command"] = ["sleep", "60"]
    server.create(earlier)
    (left,) = server.pods()
    assert _run(server, "true").succeeded
    assert left.process.poll() is not None


def test_one_that_somebody_deletes_is_an_error(server: Cluster) -> None:
    def delete() -> None:
        wait_until(server.pods)
        with server.lock:
            server.delete(NAME)

    thread = threading.Thread(target=delete)
    thread.start()
    with pytest.raises(TransientError, match="was deleted by somebody else"):
        _run(server, "sleep 60")
    thread.join()


def test_a_pod_that_waits_says_why(server: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    server.pending = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."

    def delete() -> None:
        wait_until(lambda: len(server.requests) > 6)
        with server.lock:
            server.delete(NAME)

    thread = threading.Thread(target=delete)
    thread.start()
    with pytest.raises(TransientError):
        _run(server, "true")
    thread.join()
    said = capsys.readouterr().out
    assert said.count("3 Insufficient nvidia.com/gpu.") == 1


def test_the_training_goes_on_while_the_api_is_away_and_not_for_ever(
    server: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def plant(count: int) -> None:
        wait_until(server.pods)
        with server.lock:
            server.refusals = [503] * count

    thread = threading.Thread(target=plant, args=(3,))
    thread.start()
    assert _run(server, "sleep 1").succeeded
    thread.join()
    assert "HTTP 503 planted 503; asked again" in capsys.readouterr().out

    monkeypatch.setattr(train_job, "_MOST_SILENT_SECONDS", 0.5)
    thread = threading.Thread(target=plant, args=(100,))
    thread.start()
    with pytest.raises(TransientError, match="HTTP 503"):
        _run(server, "sleep 60")
    thread.join()
    assert f"TrainJob {NAME} cannot be removed" in capsys.readouterr().out


def test_a_right_that_is_missing_is_named(server: Cluster) -> None:
    server.refusals = [403]
    with pytest.raises(TransientError, match=r"DELETE .*/trainjobs/.*: HTTP 403 planted 403"):
        _run(server, "true")
    assert not server.created

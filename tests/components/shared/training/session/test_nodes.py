"""A training on several nodes: two launchers on the loopback device stand for two machines.

The Kubernetes API is a server that stands for one (`kubeflow_trainer`); the object store is real.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import (
    ConfigError,
    DataError,
    MemoryExhaustedError,
    PermanentError,
    TransientError,
)
from components.shared.storage import Store, StoreSettings
from components.shared.training.launch import train_job
from components.shared.training.launch.heartbeat import Heartbeat
from components.shared.training.launch.kubernetes_api import KubernetesApi
from components.shared.training.launch.train_job import Ended, Outcome
from components.shared.training.session import nodes, restarts
from tests.components.shared.training import toy_nodes
from tests.components.shared.training.kubeflow_trainer import Cluster, cluster, template
from tests.components.shared.training.toy_nodes import NodesConfig, write_faults


@pytest.fixture
def server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3: StoreSettings, bucket: str
) -> Iterator[Cluster]:
    """A cluster with an object store, in which this process is the step of a compiled pipeline."""
    monkeypatch.setattr(train_job, "_POLL_SECONDS", 0.2)
    monkeypatch.setattr(restarts, "_FIRST_WAIT_SECONDS", 0.0)
    for name, value in s3.to_environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(Variable.CHECKPOINT_STORE, f"s3://{bucket}/checkpoints")
    monkeypatch.setenv(Variable.TRAIN_JOB, json.dumps(template()))
    monkeypatch.setenv(Variable.POD_NAME, "step-pod")
    monkeypatch.setenv(Variable.POD_UID, "uid-1")
    (tmp_path / "starts").mkdir()
    monkeypatch.setenv("TOY_STARTS", str(tmp_path / "starts"))
    with cluster(tmp_path) as running:
        monkeypatch.setattr(KubernetesApi, "of_pod", running.api)
        yield running


def _train(tmp_path: Path, *faults: tuple[str, int], **options: object) -> dict[str, torch.Tensor]:
    config = NodesConfig.from_mapping({"n_processes": 1, "checkpoint_steps": 1} | options)
    given = tmp_path / "faults"
    for mark in (tmp_path / "starts").iterdir():
        mark.unlink()
    toy_nodes.run(config, faults=write_faults(given, *faults), weights=tmp_path / "out/weights")
    return load_file(tmp_path / "out/weights/weights.safetensors")


@pytest.mark.slow
def test_two_nodes_give_the_weights_of_one_process_and_a_killed_node_changes_no_bit(
    server: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    s3: StoreSettings,
    bucket: str,
) -> None:
    undisturbed = _train(tmp_path)
    assert len(server.created) == 1
    resumed = _train(tmp_path, ("node", 4), ("kill", 7), max_restarts=2)
    said = capsys.readouterr().out
    assert "node 1 ended with exit code 137 and left no message" in said
    assert "node 1: rank 1 was killed by SIGKILL in step 7" in said
    # The upload of the newest checkpoint may have been under way.
    origins = re.findall(r"restart \d of 2 in 0 s, (.*)", said)
    assert len(origins) == 2, said
    assert all(origin.startswith("from the checkpoint of step ") for origin in origins), origins
    assert len(re.findall(r"resumed at step \d; the result will be identical", said)) == 2
    assert all(torch.equal(resumed[name], value) for name, value in undisturbed.items())
    assert not server.jobs
    assert not Store(s3).list(bucket)

    monkeypatch.delenv(Variable.TRAIN_JOB)
    alone = _train(tmp_path)
    for name, value in undisturbed.items():
        torch.testing.assert_close(value, alone[name], rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_permanent_error_of_a_rank_ends_the_step_at_once(server: Cluster, tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match=r"node [01]: loss is not finite at step 2 on rank 1"):
        _train(tmp_path, ("nan", 2))
    assert len(server.created) == 1


def test_several_nodes_need_a_store(server: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(Variable.CHECKPOINT_STORE)
    with pytest.raises(ConfigError, match=f"needs a store: set {Variable.CHECKPOINT_STORE}"):
        nodes.Nodes.of_step("key")


MESSAGE = json.dumps({"class": "DataError", "message": "no images", "is_cause": True})
PEER = json.dumps({"class": "TransientError", "message": "rank 0 failed", "is_cause": False})
FULL = json.dumps(
    {"class": "MemoryExhaustedError", "message": "m", "is_cause": True, "micro_batch": 8}
)


@pytest.mark.parametrize(
    ("pods", "kind", "message"),
    [
        ([Ended(0, 1, "Error", PEER), Ended(1, 42, "Error", MESSAGE)], DataError, "node 1: no im"),
        ([Ended(0, 1, "Error", PEER), Ended(1, 137, "Error", "")], TransientError, "node 1 ended"),
        ([Ended(0, 1, "Error", PEER), Ended(1, 143, "Error", "")], TransientError, "node 0: rank"),
        ([Ended(0, 143, "Error", ""), Ended(1, None, "Evicted", "")], TransientError, "Evicted"),
        ([Ended(1, 137, "OOMKilled", "")], MemoryExhaustedError, "limit of memory"),
        ([Ended(1, 42, "Error", "not a document")], PermanentError, "exit code 42"),
        ([Ended(0, 1, "Error", FULL)], MemoryExhaustedError, "node 0: m"),
        ([], TransientError, "the TrainJob failed: DeadlineExceeded"),
    ],
)
def test_the_node_that_is_the_cause_is_named(
    tmp_path: Path, pods: list[Ended], kind: type[Exception], message: str
) -> None:
    error = nodes._error(Outcome(False, "DeadlineExceeded", tuple(pods)), tmp_path)
    assert type(error) is kind
    assert message in str(error)
    if pods and pods[0].message == FULL:
        assert Heartbeat(tmp_path / "heartbeat").micro_batch() == 8

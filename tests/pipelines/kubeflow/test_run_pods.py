"""The reason why a pod waits, and its log, from a fake Kubernetes API.

tests/pipelines/run_objects.py says what the API holds.
"""

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from components.shared.contracts.errors import ConfigError
from pipelines.kubeflow.run_pods import RunPods, ending, open_cluster, workflow_nodes
from tests.pipelines.kubernetes_server import KubernetesServer
from tests.pipelines.run_objects import RunObjects

WORKFLOW = "wf-1"
INSIDE = f"{WORKFLOW}(0).root(0)"
TRAIN = f"{INSIDE}.train(0).train-baseline"
IMAGE = "registry.example/trainer:1"


@pytest.fixture
def objects(
    kubernetes: KubernetesServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> RunObjects:
    """Its objects; KUBECONFIG leads to it."""
    made = RunObjects(kubernetes, "kubeflow")
    monkeypatch.setenv("KUBECONFIG", made.kubeconfig(tmp_path / "config"))
    made.add_workflow(WORKFLOW, {})
    return made


def _pods(workflow: str = WORKFLOW) -> RunPods:
    api, reader = open_cluster("kubeflow")
    return RunPods(api, reader.namespace, workflow)


def _container(reason: str, message: str | None = None, name: str = "main") -> dict[str, Any]:
    waiting = {"reason": reason} | ({"message": message} if message else {})
    return {
        "name": name,
        "image": IMAGE,
        "imageID": "",
        "ready": False,
        "restartCount": 0,
        "state": {"waiting": waiting},
    }


def _unscheduled(reason: str, message: str) -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "reason": reason, "message": message}
    return {"phase": "Pending", "conditions": [condition]}


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (
            _unscheduled(
                "Unschedulable",
                "0/3 nodes are available: 1 Insufficient cpu,\n 2 Insufficient nvidia.com/gpu.",
            ),
            "0/3 nodes are available: 1 Insufficient cpu, 2 Insufficient nvidia.com/gpu.",
        ),
        (
            _unscheduled(
                "SchedulingGated", "Scheduling is blocked due to non-empty scheduling gates"
            ),
            "Kueue's queue",
        ),
        (
            {
                "phase": "Pending",
                "containerStatuses": [_container("ImagePullBackOff", "Back-off pulling image")],
            },
            f"main ({IMAGE}): ImagePullBackOff: Back-off pulling image",
        ),
        (
            {
                "phase": "Pending",
                "initContainerStatuses": [_container("CreateContainerConfigError", name="init")],
            },
            f"init ({IMAGE}): CreateContainerConfigError",
        ),
    ],
)
def test_a_waiting_pod_says_why(objects: RunObjects, status: dict[str, Any], reason: str) -> None:
    objects.add_pod(WORKFLOW, f"{TRAIN}(0).executor(0)", status)
    (said,) = _pods().waiting().items()
    assert said[0] == "train-baseline"
    assert reason in said[1]


def test_a_secret_that_cannot_be_mounted_is_told_by_the_last_event(objects: RunObjects) -> None:
    status = {
        "phase": "Pending",
        "initContainerStatuses": [_container("PodInitializing", name="init")],
    }
    pod = objects.add_pod(WORKFLOW, f"{WORKFLOW}(0).root-driver(0)", status)
    objects.add_event(pod, "FailedScheduling", "an older one")
    objects.add_event(
        pod,
        "FailedMount",
        'MountVolume.SetUp failed: secret "mlpipeline-minio-artifact" not found',
        "2026-01-01T00:01:00Z",
    )
    assert _pods().waiting() == {
        "root": (
            'FailedMount: MountVolume.SetUp failed: secret "mlpipeline-minio-artifact" not found'
        )
    }


def test_a_recorded_pod_that_only_starts_waits_for_nothing(objects: RunObjects) -> None:
    objects.add_recorded_pods()
    assert _pods("streetvision-noif-h5v8t").waiting() == {}


@pytest.mark.parametrize("packed", [False, True])
def test_a_pod_that_a_full_quota_refuses_is_told_by_argos_node(
    objects: RunObjects, packed: bool
) -> None:
    message = (
        'pods "x" is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=2, used:'
        " 0, limited: 1"
    )
    nodes = {
        "1": {"name": f"{TRAIN}(0).executor(0)", "phase": "Pending", "message": message},
        "2": {"name": f"{INSIDE}.configure(0).executor(0)", "phase": "Succeeded", "message": "old"},
    }
    zipped = {
        "compressedNodes": base64.b64encode(gzip.compress(json.dumps(nodes).encode())).decode()
    }
    objects.remove_pods(WORKFLOW)
    objects.add_workflow(WORKFLOW, zipped if packed else {"nodes": nodes})
    assert _pods().waiting() == {"train-baseline": message}


def test_the_pods_of_a_step_are_found_in_the_order_of_attempts(objects: RunObjects) -> None:
    objects.add_recorded_pods()
    pods = _pods("streetvision-noif-98c9g")
    around = "streetvision-noif-98c9g(0).root(0).exit-handler-1(0)"
    train = f"{around}.for-loop-2(0).iteration-iterations(0:0)(0).iteration-item(0).train-baseline"
    assert [pod.metadata.name.rpartition("-")[2] for pod in pods.of_node(train)] == ["2128344162"]
    assert len(pods.of_node(f"{around}.split-dataset")) == 1
    assert len(pods.of_node(f"{around}.split-dataset-driver")) == 1
    assert pods.of_node(f"{around}.split") == []


def test_a_pods_log_comes_in_lines(objects: RunObjects) -> None:
    pod = objects.add_pod(WORKFLOW, f"{TRAIN}(0).executor(0)", {"phase": "Running"})
    objects.set_log(pod, "first\nsecond\nno end of line")
    pods = _pods()
    (found,) = pods.of_node(TRAIN)
    assert list(pods.log(found, follow=True)) == ["first", "second", "no end of line"]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (
            {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."},
            "Evicted: The node was low",
        ),
        ({"phase": "Failed", "reason": "DeadlineExceeded"}, "DeadlineExceeded"),
        ({"phase": "Failed"}, ""),
    ],
)
def test_what_ended_a_pod_from_outside(
    objects: RunObjects, status: dict[str, Any], said: str
) -> None:
    objects.add_pod(WORKFLOW, f"{TRAIN}(0).executor(0)", status)
    assert ending(_pods().of_node(TRAIN)[0]).startswith(said)


def test_a_container_that_the_kernel_killed(objects: RunObjects) -> None:
    state = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    container = {
        "name": "main",
        "image": IMAGE,
        "imageID": "",
        "ready": False,
        "restartCount": 0,
        "state": state,
    }
    objects.add_pod(
        WORKFLOW, f"{TRAIN}(0).executor(0)", {"phase": "Failed", "containerStatuses": [container]}
    )
    assert ending(_pods().of_node(TRAIN)[0]) == "OOMKilled (exit code 137)"


def test_a_process_that_ended_by_itself_is_told_by_its_log(objects: RunObjects) -> None:
    objects.add_recorded_pods()
    assert [ending(pod) for pod in _pods("streetvision-noif-98c9g")._pods] == ["", "", ""]


def test_whether_the_workflow_is_still_there(
    objects: RunObjects, kubernetes: KubernetesServer
) -> None:
    for workflow in (WORKFLOW, "gone"):
        objects.add_pod(workflow, f"{workflow}(0).root-driver(0)", {"phase": "Running"})
        objects.remove_pods(workflow)
    assert _pods().workflow_exists()
    assert not _pods("gone").workflow_exists()


def test_a_cluster_that_does_not_answer_is_told_in_one_line(
    kubernetes: KubernetesServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="no cluster is configured"):
        open_cluster("kubeflow")
    objects = RunObjects(kubernetes, "kubeflow")
    kubernetes.answers["/version/"] = 401
    monkeypatch.setenv("KUBECONFIG", objects.kubeconfig(tmp_path / "config"))
    with pytest.raises(ConfigError, match="does not know these credentials"):
        open_cluster("kubeflow")
    kubernetes.answers["/version/"] = 403
    assert open_cluster("kubeflow")[1].namespace == "kubeflow"


def test_no_kubernetes_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.pipelines.kubernetes_server import write_kubeconfig

    write_kubeconfig(tmp_path / "config", "http://127.0.0.1:9")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    with pytest.raises(ConfigError, match=r"Kubernetes cannot be reached .*Connection refused"):
        open_cluster("kubeflow")
    (tmp_path / "config").write_text("not: [yaml")
    with pytest.raises(ConfigError, match="kubeconfig"):
        open_cluster("kubeflow")


def test_a_workflow_without_a_status_has_no_nodes() -> None:
    assert workflow_nodes({}) == []

"""Print what `status`, `logs` and `wait` say of each recorded run.

`python -m tests.recordings.show`. KFP's API is the fake server with recorded runs and refusals; the
store is a real S3 server with the recorded logs. States that no recording has, and the objects of
Kubernetes, are made up.
"""

import contextlib
import os
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.shared.storage import Store
from pipelines.cli.app import main
from pipelines.local.embedded_store import embedded_store
from tests.pipelines.argo_tasks import task_details
from tests.pipelines.kfp_server import KfpServer, kfp_server, recorded
from tests.pipelines.kubernetes_server import KubernetesServer, kubernetes_server
from tests.pipelines.run_objects import RunObjects
from tests.recordings.replay import ROOT, add_run, fill_store, pipeline_of, recorded_runs

_STEP_WITH_LOG = {"run-succeeded": "train-baseline", "run-bad-data-path": "fingerprint-source"}
_VALUES = (
    "--param",
    "data=s3://streetvision/data",
    "--param",
    "backbone=s3://streetvision/backbone",
)


def show() -> None:
    """Print every command with its output and exit code."""
    with tempfile.TemporaryDirectory() as folder, embedded_store(Path(folder) / "s3") as settings:
        fill_store(Store(settings), Path(folder) / "log")
        os.environ.update(
            settings.to_environment() | {"STREETVISION_PIPELINE_ROOT": ROOT, "HOME": folder}
        )
        os.environ["KUBECONFIG"] = str(Path(folder) / "no-cluster")
        for mode in ("api", "api-multi-user"):
            for name, run in recorded_runs(mode).items():
                _show_run(f"{mode}/{name}", run)
        _show_refusals()
        _show_waiting(Path(folder))
        _show_submit(Path(folder))


def _show_run(name: str, run: dict[str, Any]) -> None:
    mode, _, file = name.partition("/")
    print(f"\n### {name}.json\n")
    with _api(multi_user=mode == "api-multi-user") as server:
        add_run(server, run)
        options = [run["run_id"], "--pipeline", pipeline_of(run)]
        _command("status", *options)
        _command("wait", *options, "--timeout", "0", "--poll", "0")
        if file in _STEP_WITH_LOG and mode == "api":
            _command("logs", *options, "--step", _STEP_WITH_LOG[file])


def _show_refusals() -> None:
    print("\n### no API, another namespace, tokens, an API without this pipeline\n")
    _command("status", "--host", "http://127.0.0.1:9")
    with _api(multi_user=True):
        _command("status", "--namespace", "other")
        _command("status")
    for refusal in ("runs-expired", "runs-wrong-audience", "runs-garbage"):
        with _api(multi_user=True, token="good") as server:
            server.wrong_token = refusal
            os.environ["STREETVISION_KFP_TOKEN"] = "another"
            _command("status")
            del os.environ["STREETVISION_KFP_TOKEN"]
    with _api(multi_user=True, token="good"):
        _command("status")


def _show_waiting(folder: Path) -> None:
    print("\n### a missing Secret, a full quota, an image that cannot be pulled, no CPU left\n")
    hanging = recorded("api-multi-user/run-hanging")
    workflow = "streetvision-stage1-7dn8z"
    with _cluster(folder, "streetvision") as objects, _api(multi_user=True) as server:
        add_run(server, hanging)
        objects.add_workflow(workflow, {})
        pod = objects.add_pod(workflow, f"{workflow}(0).root-driver(0)", {"phase": "Pending"})
        objects.add_event(
            pod,
            "FailedMount",
            'MountVolume.SetUp failed for volume "my-minio-cred" : secret'
            ' "mlpipeline-minio-artifact" not found',
        )
        _command("status")

    image = {
        "name": "main",
        "image": "streetvision/trainer:1",
        "imageID": "",
        "ready": False,
        "restartCount": 0,
    }
    pull = {
        "reason": "ImagePullBackOff",
        "message": 'Back-off pulling image "streetvision/trainer:1"',
    }
    full = {"message": "0/1 nodes are available: 1 Insufficient cpu.", "reason": "Unschedulable"}
    _show_made(folder, {"containerStatuses": [image | {"state": {"waiting": pull}}]}, {})
    _show_made(folder, {"conditions": [{"type": "PodScheduled", "status": "False"} | full]}, {})
    message = (
        'pods "x" is forbidden: exceeded quota: streetvision, requested: requests.nvidia.com/gpu=2,'
        " limited: 0"
    )
    _show_made(folder, None, {"phase": "Pending", "message": message})


def _show_made(folder: Path, pod: dict[str, Any] | None, node: dict[str, Any]) -> None:
    """A run whose training waits: its pod, or the node of a pod that could not be made."""
    name = "wf-1(0).root(0).train(0).train-baseline(0).executor(0)"
    run = recorded_runs()["run-running"] | {"run_id": "made", "display_name": "made"}
    run["run_details"] = {
        "task_details": task_details(
            "wf-1", {"configure": "done", "train/train-baseline": "pending"}
        )
    }
    with _cluster(folder, "kubeflow") as objects, _api(multi_user=False) as server:
        server.add_run(run, "streetvision-stage1")
        objects.add_workflow("wf-1", {"nodes": {"n": {"name": name, **node}}} if node else {})
        objects.add_pod("wf-1", name, {"phase": "Pending", **(pod or {})})
        if pod is None:
            objects.remove_pods("wf-1")
        _command("status")


def _show_submit(folder: Path) -> None:
    print("\n### submit: places that pods cannot read, a namespace without what pods need\n")
    _command("submit", "--param", "data=photos", "--param", "backbone=s3://streetvision/backbone")
    with _cluster(folder, "kubeflow") as objects, _api(multi_user=False):
        keys = {"accesskey": "a", "secretkey": "b"}
        objects.server.hold_ready_namespace(
            "kubeflow", "mlpipeline", "mlpipeline-minio-artifact", keys
        )
        for missing in ("serviceaccounts/streetvision-runner", "secrets/mlpipeline-minio-artifact"):
            path = f"/api/v1/namespaces/kubeflow/{missing}"
            held = objects.server.answers.pop(path)
            _command("submit", *_VALUES)
            objects.server.answers[path] = held


@contextlib.contextmanager
def _api(*, multi_user: bool, token: str | None = None) -> Iterator[KfpServer]:
    with kfp_server(multi_user=multi_user, token=token) as server:
        os.environ["KF_PIPELINES_ENDPOINT"] = server.host
        yield server


@contextlib.contextmanager
def _cluster(folder: Path, namespace: str) -> Iterator[RunObjects]:
    with kubernetes_server() as server:
        yield _objects(server, folder, namespace)
    os.environ["KUBECONFIG"] = str(folder / "no-cluster")


def _objects(server: KubernetesServer, folder: Path, namespace: str) -> RunObjects:
    objects = RunObjects(server, namespace)
    os.environ["KUBECONFIG"] = objects.kubeconfig(folder / "config")
    return objects


def _command(*arguments: str) -> None:
    print(f"$ python -m pipelines {shlex.join(arguments)}", flush=True)
    code: object = 0
    with contextlib.redirect_stderr(_Printed()):
        try:
            main(arguments)
        except SystemExit as ended:
            code = ended.code
    print(f"(exit code {code or 0})\n", flush=True)


class _Printed:
    """Standard error in the place where it was written."""

    def write(self, text: str) -> int:
        return print(text, end="") or len(text)

    def flush(self) -> None:
        """Printed as it comes."""


if __name__ == "__main__":
    show()

"""A real HTTP server that stands for the Kubernetes API of a cluster with Kubeflow Trainer.

It speaks the requests that a training step makes, and acts as Trainer's controller, JobSet and Job
act on one TrainJob: one process here for each pod there, with the variables that Trainer's plugin
for torch sets; the pods that still run are ended and removed when one has failed (Job with
backoffLimit 0). All processes share this machine, and the node 0 listens on the loopback device.
The rules are those of Kubeflow Trainer 2.3.0 (pkg/runtime/framework/plugins/torch and jobset) and
of Kubernetes' documentation of Jobs; no cluster was asked.
"""

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from components.shared.training.launch.kubernetes_api import KubernetesApi
from pipelines.resources import load_profile
from pipelines.train_job import train_job
from tests.served import served

NAMESPACE, TOKEN = "runs", "token-of-the-step"
JOBS = f"/apis/trainer.kubeflow.org/v1alpha1/namespaces/{NAMESPACE}/trainjobs"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
_ROOT = Path(__file__).resolve().parents[4]


class Pod:
    """One process, its log with time stamps, and its termination message."""

    def __init__(self, folder: Path, name: str, node: int, job: dict[str, Any], port: int) -> None:
        self.name, self.node = name, node
        self.lines: list[str] = []
        self.message = folder / f"{name}.termination"
        trainer = job["spec"]["trainer"]
        command = [sys.executable if part == "python" else part for part in trainer["command"]]
        environment = os.environ | {
            item["name"]: item["value"] for item in trainer["env"] if "value" in item
        }
        environment |= {
            "PET_NNODES": str(trainer["numNodes"]),
            "PET_NODE_RANK": str(node),
            "PET_NPROC_PER_NODE": "auto",
            "PET_MASTER_ADDR": "127.0.0.1",
            "PET_MASTER_PORT": str(port),
            "STREETVISION_TERMINATION_LOG": str(self.message),
            "PYTHONUNBUFFERED": "1",
        }
        self.process = subprocess.Popen(
            command,
            cwd=_ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + f"{len(self.lines):03}Z"
            self.lines.append(f"{stamp[:26]}{len(self.lines) % 1000:03}Z {line}")
        self.process.stdout.close()

    def end(self) -> None:
        """SIGTERM, then SIGKILL, as the kubelet does."""
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def document(self) -> dict[str, Any]:
        """The Pod object, as far as a step reads it."""
        code = self.process.poll()
        state: dict[str, Any] = {"running": {}}
        if code is not None:
            message = self.message.read_text() if self.message.exists() else ""
            exit_code = code if code >= 0 else 128 - code
            reason = "Completed" if code == 0 else "Error"
            state = {
                "terminated": {"exitCode": exit_code, "reason": reason, "message": message[:4096]}
            }
        phase = {None: "Running", 0: "Succeeded"}.get(code, "Failed")
        return {
            "metadata": {
                "name": self.name,
                "labels": {"batch.kubernetes.io/job-completion-index": str(self.node)},
            },
            "status": {
                "phase": phase,
                "containerStatuses": [{"name": "node", "state": state}],
            },
        }


class Cluster(ThreadingHTTPServer):
    """The API.

    created: every TrainJob that was created; requests: "METHOD path"; refusals: statuses with which
    the next requests are answered; pending: messages of pods that do not start, which then are not
    started.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.created: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self.refusals: list[int] = []
        self.pending = ""
        self.lock = threading.Lock()
        self.jobs: dict[str, tuple[dict[str, Any], list[Pod]]] = {}
        self._numbers = itertools.count()

    def api(self) -> KubernetesApi:
        """A client of the step's pod."""
        account = self.folder / "account"
        account.mkdir(exist_ok=True)
        (account / "namespace").write_text(NAMESPACE)
        (account / "token").write_text(TOKEN + "\n")
        return KubernetesApi(f"http://127.0.0.1:{self.server_address[1]}", account)

    def pods(self) -> list[Pod]:
        """All pods that are there."""
        return [pod for _, pods in self.jobs.values() for pod in pods]

    def create(self, job: dict[str, Any]) -> int:
        """Make a TrainJob's pods."""
        name = job["metadata"]["name"]
        if name in self.jobs:
            return 409
        self.created.append(job)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        nodes = 0 if self.pending else job["spec"]["trainer"]["numNodes"]
        pods = [
            Pod(self.folder, f"{name}-node-0-{node}-{next(self._numbers)}", node, job, port)
            for node in range(nodes)
        ]
        self.jobs[name] = job, pods
        return 201

    def status(self, name: str) -> dict[str, Any]:
        """The TrainJob with its conditions; where a pod has failed, the others go."""
        job, pods = self.jobs[name]
        codes = [pod.process.poll() for pod in pods]
        condition = None
        if any(code not in (None, 0) for code in codes) or job.get("failed"):
            job["failed"] = True
            for pod in [pod for pod, code in zip(pods, codes, strict=True) if code is None]:
                pod.end()
                pods.remove(pod)
            condition = {"type": "Failed", "status": "True", "message": "jobset failed"}
        elif pods and all(code == 0 for code in codes):
            condition = {"type": "Complete", "status": "True", "message": "jobset completed"}
        return job | {"status": {"conditions": [condition] if condition else []}}

    def delete(self, name: str) -> int:
        """End and remove a TrainJob's pods."""
        if name not in self.jobs:
            return 404
        for pod in self.jobs.pop(name)[1]:
            pod.end()
        return 200


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Cluster

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.server.lock:
            self.server.requests.append(f"{self.command} {parts.path}")
            status, answer = self._status_and_answer(parts.path, query, body)
        text = answer if isinstance(answer, str) else json.dumps(answer)
        self.send_response(status)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_POST = do_DELETE = _handle  # noqa: N815

    def _status_and_answer(self, path: str, query: dict[str, str], body: bytes) -> tuple[int, Any]:
        cluster = self.server
        if cluster.refusals:
            status = cluster.refusals.pop(0)
            return status, {"kind": "Status", "message": f"planted {status}"}
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            return 401, {"kind": "Status", "message": "Unauthorized"}

        name = path.rpartition("/")[2]
        if path == JOBS and self.command == "POST":
            return cluster.create(json.loads(body)), {}
        if path.startswith(f"{JOBS}/"):
            if self.command == "DELETE":
                return cluster.delete(name), {}
            return (200, cluster.status(name)) if name in cluster.jobs else (404, {})
        if path == PODS:
            return 200, {"items": self._pods(query["labelSelector"])}
        if path.startswith(f"{PODS}/") and name == "log":
            return 200, self._log(path.split("/")[-2], query)
        return 404, {}

    def _pods(self, selector: str) -> list[dict[str, Any]]:
        name = selector.removeprefix("jobset.sigs.k8s.io/jobset-name=")
        if self.server.pending:
            condition = {"type": "PodScheduled", "status": "False", "message": self.server.pending}
            return [{"status": {"phase": "Pending", "conditions": [condition]}}]
        _, pods = self.server.jobs.get(name, ({}, []))
        return [pod.document() for pod in pods]

    def _log(self, name: str, query: dict[str, str]) -> str:
        assert (query["container"], query["timestamps"]) == ("node", "true")
        (pod,) = (pod for pod in self.server.pods() if pod.name == name)
        lines = [line for line in pod.lines if line[:19] >= query.get("sinceTime", "")[:19]]
        return "".join(lines[-int(query["tailLines"]) :] if "tailLines" in query else lines)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Run one; no process of a pod is left afterwards."""
    with Cluster(folder) as server, served(server, threading.Event(), 0.02):
        try:
            yield server
        finally:
            for name in list(server.jobs):
                server.delete(name)


def template(n_nodes: int = 2) -> dict[str, Any]:
    """The TrainJob that a compiled pipeline gives the step of a small training."""
    profile = load_profile("cpu")
    object.__setattr__(profile.training, "n_nodes", n_nodes)
    return train_job(profile, step="train-baseline", image="trainer:1")


def wait_until(condition: Any, seconds: float = 60.0) -> None:
    """Wait for something that another process does."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.02)

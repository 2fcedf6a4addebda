"""Pods, events and other objects of a run for the fake Kubernetes API.

Pods are those of tests/recordings/api/pods.json, or copies of them with another node and status.
Every object is checked against Kubernetes' schemas. Logs and events are made up.
"""

import base64
import copy
from pathlib import Path
from typing import Any

import kubernetes_validate

from tests.pipelines.kfp_server import recorded
from tests.pipelines.kubernetes_server import KubernetesServer, write_kubeconfig

Document = dict[str, Any]
WORKFLOW_LABEL = "workflows.argoproj.io/workflow"
NODE_NAME = "workflows.argoproj.io/node-name"
_ARGO = "/apis/argoproj.io/v1alpha1/namespaces"


class RunObjects:
    """Objects of one namespace in a fake Kubernetes API."""

    def __init__(self, server: KubernetesServer, namespace: str) -> None:
        self.server, self.namespace = server, namespace
        self._core = f"/api/v1/namespaces/{namespace}"
        server.answers["/version/"] = dict.fromkeys(
            (
                "major",
                "minor",
                "gitVersion",
                "gitCommit",
                "gitTreeState",
                "buildDate",
                "goVersion",
                "compiler",
                "platform",
            ),
            "",
        )

    def kubeconfig(self, file: Path, namespace: str = "") -> str:
        """Write the kubeconfig that leads to the server; returns its path."""
        write_kubeconfig(file, self.server.host, namespace)
        return str(file)

    def add_recorded_pods(self) -> None:
        """Hold the recorded pods of all runs."""
        for pod in recorded("api/pods")["items"]:
            self._add_pod(copy.deepcopy(pod))

    def add_pod(self, workflow: str, node: str, status: Document) -> str:
        """Hold a pod like a recorded one, of another node and with another status.

        Returns its name.
        """
        pod = copy.deepcopy(recorded("api/pods")["items"][0])
        pod["metadata"]["name"] = (
            f"pod-of-{node.rpartition('.')[2].replace('(', '-').replace(')', '')}"
        )
        pod["metadata"]["labels"][WORKFLOW_LABEL] = workflow
        pod["metadata"]["annotations"][NODE_NAME] = node
        pod["status"] = status
        _check(pod)
        self._add_pod(pod)
        return str(pod["metadata"]["name"])

    def remove_pods(self, workflow: str) -> None:
        """Hold no pod of a Workflow."""
        self._list(f"pods?{WORKFLOW_LABEL}={workflow}").clear()

    def add_event(
        self, pod: str, reason: str, message: str, time: str = "2026-01-01T00:00:00Z"
    ) -> None:
        """Hold a warning about a pod."""
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{pod}.{reason.lower()}", "namespace": self.namespace},
            "involvedObject": {"kind": "Pod", "name": pod, "namespace": self.namespace},
            "reason": reason,
            "message": message,
            "type": "Warning",
            "lastTimestamp": time,
        }
        _check(event)
        self._list(f"events?involvedObject.name={pod}").append(event)

    def set_log(self, pod: str, text: str) -> None:
        """What a pod wrote."""
        self.server.answers[f"{self._core}/pods/{pod}/log"] = text

    def add_workflow(self, name: str, status: Document) -> None:
        """Hold a Workflow of Argo."""
        path = f"{_ARGO}/{self.namespace}/workflows/{name}"
        self.server.answers[path] = {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Workflow",
            "status": status,
        }

    def add_config_map(self, name: str, data: dict[str, str]) -> None:
        """Hold a ConfigMap."""
        self._add("ConfigMap", f"configmaps/{name}", {"data": data})

    def add_secret(self, name: str, values: dict[str, str]) -> None:
        """Hold a Secret."""
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
        self._add("Secret", f"secrets/{name}", {"data": encoded})

    def _add(self, kind: str, path: str, content: Document) -> None:
        document = {
            "apiVersion": "v1",
            "kind": kind,
            "metadata": {"name": path.rpartition("/")[2]},
            **content,
        }
        _check(document)
        self.server.answers[f"{self._core}/{path}"] = document

    def _add_pod(self, pod: Document) -> None:
        self._list(f"pods?{WORKFLOW_LABEL}={pod['metadata']['labels'][WORKFLOW_LABEL]}").append(pod)

    def _list(self, path: str) -> list[Document]:
        empty = {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": []}
        items: list[Document] = self.server.answers.setdefault(f"{self._core}/{path}", empty)[
            "items"
        ]
        return items


def _check(document: Document) -> None:
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)

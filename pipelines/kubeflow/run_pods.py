"""Pods of a run, by Kubernetes' API: why one waits, and what one wrote.

Read only, and never required.
"""

import base64
import contextlib
import gzip
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml
from kubernetes import client
from kubernetes.client import ApiClient, ApiException
from urllib3.exceptions import HTTPError

from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError, one_line
from pipelines.kubeflow.reader import ClusterReader, kubernetes_api
from pipelines.kubeflow.run_nodes import DRIVER_SUFFIX, EXECUTOR

WORKFLOW_LABEL = "workflows.argoproj.io/workflow"
NODE_NAME = "workflows.argoproj.io/node-name"  # annotation of a pod: full name of its node
MAIN = "main"  # the container with the step's, or the driver's, own process
_TIMEOUT_SECONDS = (3, 20)
_ARGO = ("argoproj.io", "v1alpha1")
_STEP_NODE = re.compile(rf"([^.]+?)(?:\(\d+\))?\.{EXECUTOR}(?:\(\d+\))?$")
_DRIVER_NODE = re.compile(rf"([^.]+?){DRIVER_SUFFIX}(?:\(\d+\))?$")


class RunPods:
    """Pods of one Workflow, read once; make another for a fresh look."""

    def __init__(self, api: ApiClient, namespace: str, workflow: str) -> None:
        self._core, self._custom = client.CoreV1Api(api), client.CustomObjectsApi(api)
        self._namespace, self._workflow = namespace, workflow
        selector = f"{WORKFLOW_LABEL}={workflow}"
        self._pods = self._core.list_namespaced_pod(
            namespace, label_selector=selector, _request_timeout=_TIMEOUT_SECONDS
        ).items

    def waiting(self) -> dict[str, str]:
        """Return why pods wait, by the name of the step.

        A waiting driver is named by the step or group that it would start.

        A task whose pod could not be made (a full quota) has Argo's message. A pod that only starts
        has no reason.
        """
        reasons = {}
        for pod in self._pods:
            if pod.status.phase == "Pending":
                reasons[_owner(_node_of(pod))] = waiting_reason(pod, self._events(pod))

        for node in self._workflow_nodes():
            if node.get("phase") == "Pending":
                reasons.setdefault(_owner(node.get("name", "")), str(node.get("message") or ""))

        return {owner: reason for owner, reason in reasons.items() if owner and reason}

    def workflow_exists(self) -> bool:
        """Whether the Workflow is still there.

        Raises ApiException where it may not be looked at.
        """
        return bool(self._pods) or self._read_workflow() is not None

    def of_node(self, name: str) -> list[Any]:
        """Return the pods of a node's full name, in the order of its attempts."""
        inside = [pod for pod in self._pods if _belongs(_node_of(pod), name)]
        return sorted(inside, key=_node_of)

    def log(self, pod: Any, *, follow: bool = False) -> Iterator[str]:
        """Yield the lines of what the pod wrote; with `follow` until it ends."""
        response = self._core.read_namespaced_pod_log(
            pod.metadata.name,
            self._namespace,
            container=MAIN,
            follow=follow,
            _preload_content=False,
            _request_timeout=(_TIMEOUT_SECONDS[0], None) if follow else _TIMEOUT_SECONDS,
        )
        with contextlib.closing(response):
            yield from _lines(response.stream())

    def _events(self, pod: Any) -> list[Any]:
        selector = f"involvedObject.name={pod.metadata.name}"
        with contextlib.suppress(ApiException):
            found = self._core.list_namespaced_event(
                self._namespace, field_selector=selector, _request_timeout=_TIMEOUT_SECONDS
            )
            return list(found.items)
        return []

    def _workflow_nodes(self) -> list[Mapping[str, Any]]:
        with contextlib.suppress(ApiException):
            return workflow_nodes(self._read_workflow() or {})
        return []

    def _read_workflow(self) -> Mapping[str, Any] | None:
        try:
            found: Mapping[str, Any] = self._custom.get_namespaced_custom_object(
                *_ARGO,
                self._namespace,
                "workflows",
                self._workflow,
                _request_timeout=_TIMEOUT_SECONDS,
            )
        except ApiException as error:
            if error.status == 404:
                return None
            raise

        return found


def open_cluster(namespace: str) -> tuple[ApiClient, ClusterReader]:
    """Return Kubernetes' API and a reader of the namespace, after it has answered once.

    Raises ConfigError, in one line, where no cluster is configured or it does not answer.
    """
    try:
        api = kubernetes_api()
    except yaml.YAMLError as error:
        raise ConfigError(
            f"kubeconfig cannot be read ({one_line(error)}); set {Variable.KUBECONFIG}"
        ) from error

    reader = ClusterReader(api)
    reader.namespace = namespace
    try:
        reader.version()
    except ApiException as error:
        # Whoever may not ask for the version may still read pods.
        if error.status == 401:
            raise ConfigError(
                f"Kubernetes does not know these credentials (HTTP 401 {error.reason})"
            ) from error
    except HTTPError as error:
        raise ConfigError(f"Kubernetes cannot be reached ({_unreached(error)})") from error

    return api, reader


def reader_or_none(namespace: str) -> ClusterReader | None:
    """Return a reader of the namespace.

    None where Kubernetes cannot be asked, for whoever can go on without it.
    """
    with contextlib.suppress(ConfigError):
        return open_cluster(namespace)[1]
    return None


def attempt_of(pod: Any) -> int:
    """Return the number of the attempt that the pod is, from 0."""
    found = re.search(r"\((\d+)\)$", _node_of(pod))
    return int(found[1]) if found else 0


def waiting_reason(pod: Any, events: Iterable[Any]) -> str:
    """Return why a pod does not start, or "".

    The scheduler's message, else the kubelet's, else the last warning about the pod.

    "" where nothing is wrong yet.
    """
    for condition in pod.status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            if condition.reason == "SchedulingGated":
                return (
                    "it is held back by a scheduling gate, as Kueue's queue sets one until there is"
                    " room"
                )
            return one_line(Exception(condition.message or condition.reason or "not scheduled"))

    statuses = [*(pod.status.init_container_statuses or []), *(pod.status.container_statuses or [])]
    for status in statuses:
        waits = status.state.waiting if status.state else None
        if waits is not None and waits.reason not in ("PodInitializing", "ContainerCreating", None):
            shown = f"{waits.reason}: {waits.message}" if waits.message else waits.reason
            return one_line(Exception(f"{status.name} ({status.image}): {shown}"))

    warnings = [event for event in events if event.type == "Warning"]
    warnings.sort(key=lambda event: str(event.last_timestamp or event.event_time or ""))

    return one_line(Exception(f"{warnings[-1].reason}: {warnings[-1].message}")) if warnings else ""


def ending(pod: Any) -> str:
    """Return what ended a pod from outside, such as an eviction or OOMKilled.

    "" where its own process ended.
    """
    if pod.status.reason:
        return one_line(Exception(f"{pod.status.reason}: {pod.status.message or ''}")).rstrip(": ")
    for status in pod.status.container_statuses or []:
        ended = status.state.terminated if status.state and status.name == MAIN else None
        if ended is not None and ended.reason not in ("Error", "Completed", None):
            return f"{ended.reason} (exit code {ended.exit_code})"
    return ""


def workflow_nodes(workflow: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the nodes in a Workflow's status, which Argo compresses where they are large."""
    status = workflow.get("status") or {}
    packed = status.get("compressedNodes")
    nodes = json.loads(gzip.decompress(base64.b64decode(packed))) if packed else status.get("nodes")
    return list((nodes or {}).values())


def _node_of(pod: Any) -> str:
    return str((pod.metadata.annotations or {}).get(NODE_NAME, ""))


def _owner(node: str) -> str:
    """The step of an executor's node, or the step or group of a driver's; "" for other nodes."""
    found = _STEP_NODE.search(node) or _DRIVER_NODE.search(node)
    return found[1].rpartition(".")[2] if found else ""


def _belongs(node: str, name: str) -> bool:
    """Whether a pod's node is the named node itself, an attempt of it, or its executor."""
    return (
        bool(name)
        and re.fullmatch(rf"{re.escape(name)}(\(\d+\))?(\.{EXECUTOR}(\(\d+\))?)?", node) is not None
    )


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    rest = b""
    for chunk in chunks:
        *complete, rest = (rest + chunk).split(b"\n")
        yield from (line.decode(errors="replace") for line in complete)
    if rest:
        yield rest.decode(errors="replace")


def _unreached(error: HTTPError) -> str:
    text = str(error).rpartition(": ")[2]
    return text if 0 < len(text) < 100 else type(error).__name__

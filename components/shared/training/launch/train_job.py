"""A TrainJob of Kubeflow Trainer: created, watched until it ends, and removed.

Kubeflow Trainer 2.2 or later (trainer.kubeflow.org/v1alpha1). It makes one pod for each machine,
through a JobSet of the same name, and tells each its number and where the first one listens.
"""

import contextlib
import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.shared.contracts.errors import TransientError, one_line
from components.shared.contracts.interrupts import interruptible
from components.shared.contracts.listing import say
from components.shared.training.launch.kubernetes_api import ApiUnavailableError, KubernetesApi

__all__ = ["Ended", "Outcome", "Owner", "run_train_job"]

_CONTAINER = "node"  # the name that Kubeflow Trainer gives the replicated job and its container
_INDEX = "batch.kubernetes.io/job-completion-index"
_JOB_SET = "jobset.sigs.k8s.io/jobset-name"
_POLL_SECONDS = 2.0
# The API may be away for so long, as in an upgrade of the cluster; the training goes on meanwhile.
_MOST_SILENT_SECONDS = 600.0
_REMOVAL_SECONDS = 180.0
_LAST_LINES = 20


@dataclass(frozen=True)
class Owner:
    """The pod of the step, with which the TrainJob goes where the step cannot remove it."""

    name: str
    uid: str


@dataclass(frozen=True)
class Ended:
    """How a pod of a TrainJob ended.

    `exit_code`: None where it did not end by itself; `reason`: Kubernetes' word for it, such as
    OOMKilled or Evicted; `message`: what the pod left as its termination message.
    """

    node: int
    exit_code: int | None
    reason: str
    message: str


@dataclass(frozen=True)
class Outcome:
    """How a TrainJob ended, in the words of its last condition, and its pods."""

    succeeded: bool
    message: str
    pods: tuple[Ended, ...]


def run_train_job(
    api: KubernetesApi,
    template: Mapping[str, Any],
    *,
    name: str,
    command: Sequence[str],
    owner: Owner,
) -> Outcome:
    """Run a TrainJob to its end, and return that.

    The log of the first machine is shown here, and of a machine that fails the last lines. The
    TrainJob is removed with its pods, however this ends, SIGTERM included; one of the same name is
    removed first.

    Args:
        api: The API of the cluster.
        template: The TrainJob without name, owner and command.
        name: Its name, of at most 40 characters.
        command: What each machine runs.
        owner: The pod of this step.

    Raises:
        TransientError: The TrainJob was deleted, or the API is away for ten minutes.
    """
    job = _complete(template, name, command, owner)
    with interruptible(), _created(api, job):
        say(f"TrainJob {name}: {job['spec']['trainer']['numNodes']} nodes")
        return _Watch(api, name).until_ended()


@contextlib.contextmanager
def _created(api: KubernetesApi, job: Mapping[str, Any]) -> Iterator[None]:
    name = job["metadata"]["name"]
    _remove(api, name)
    try:
        # After a lost answer, the repeated request meets what the first one has made.
        if not api.create(_path(api), job) and not _is_same(api.read(f"{_path(api)}/{name}"), job):
            raise TransientError(f"TrainJob {name} was created by another attempt meanwhile")
        yield
    finally:
        # What the step has found out stays: the owner reference removes what this cannot.
        try:
            _remove(api, name)
        except TransientError as error:
            say(f"warning: TrainJob {name} cannot be removed: {one_line(error)}")


def _remove(api: KubernetesApi, name: str) -> None:
    """Delete the TrainJob and wait until it is gone, with its pods."""
    path, ends = f"{_path(api)}/{name}", time.monotonic() + _REMOVAL_SECONDS
    if not api.delete(path):
        return
    while api.read(path) is not None:
        if time.monotonic() > ends:
            say(f"warning: TrainJob {name} is still being deleted after {_REMOVAL_SECONDS:.0f} s")
            return
        time.sleep(_POLL_SECONDS / 4)


def _complete(
    template: Mapping[str, Any], name: str, command: Sequence[str], owner: Owner
) -> dict[str, Any]:
    job = copy.deepcopy(dict(template))
    reference = {"apiVersion": "v1", "kind": "Pod", "name": owner.name, "uid": owner.uid}
    job["metadata"] = job.get("metadata", {}) | {"name": name, "ownerReferences": [reference]}
    job["spec"]["trainer"]["command"] = list(command)
    return job


def _is_same(found: Mapping[str, Any] | None, job: Mapping[str, Any]) -> bool:
    """Whether an object that exists already was made by this pod."""
    owners = found["metadata"].get("ownerReferences", []) if found is not None else []
    return bool(owners == job["metadata"]["ownerReferences"])


class _Watch:
    """What was seen of a TrainJob so far."""

    def __init__(self, api: KubernetesApi, name: str) -> None:
        self._api, self._name = api, name
        self._shown: dict[int, str] = {}  # time stamp of the last line of a node's log
        self._said: set[str] = set()

    def until_ended(self) -> Outcome:
        """Look every two seconds."""
        answered = time.monotonic()
        while True:
            try:
                state, message, pods = self._look()
                answered = time.monotonic()
            except ApiUnavailableError as error:
                if time.monotonic() - answered > _MOST_SILENT_SECONDS:
                    raise
                self._say_once(f"warning: {one_line(error)}; asked again")
                state, message, pods = "", "", []

            if state in ("Complete", "Failed"):
                if state == "Failed":
                    self._show_failed(pods)
                return Outcome(state == "Complete", message, tuple(map(_ended, pods)))
            time.sleep(_POLL_SECONDS)

    def _look(self) -> tuple[str, str, list[dict[str, Any]]]:
        """Return the condition that ended the TrainJob, if any, its message, and the pods."""
        job = self._api.read(f"{_path(self._api)}/{self._name}")
        if job is None:
            raise TransientError(f"TrainJob {self._name} was deleted by somebody else")

        # Conditions first: what the pods of an ended TrainJob left is then complete.
        listed = self._api.read(self._pods, labelSelector=f"{_JOB_SET}={self._name}") or {}
        pods = sorted(listed.get("items", []), key=_node)
        for pod in pods:
            self._say_why_it_waits(pod)
            if _node(pod) == 0:
                self._show_log(pod)

        for condition in job.get("status", {}).get("conditions", []):
            if condition.get("status") == "True":
                kind, message = str(condition.get("type")), str(condition.get("message", ""))
                self._say_once(f"TrainJob {self._name}: {kind}: {message}")
                if kind in ("Complete", "Failed"):
                    return kind, message, pods
        return "", "", pods

    @property
    def _pods(self) -> str:
        return f"/api/v1/namespaces/{self._api.namespace}/pods"

    def _say_why_it_waits(self, pod: Mapping[str, Any]) -> None:
        """Say what Kubernetes says of a pod that does not start."""
        status = pod.get("status", {})
        if status.get("phase") != "Pending":
            return
        for condition in status.get("conditions", []):
            if condition.get("status") == "False" and condition.get("message"):
                self._say_once(f"node {_node(pod)} waits: {condition['message']}")
        for container in status.get("containerStatuses", []):
            waiting = container.get("state", {}).get("waiting", {})
            if waiting.get("message"):
                self._say_once(f"node {_node(pod)} waits: {waiting['message']}")

    def _show_log(self, pod: Mapping[str, Any], last_lines: int | None = None) -> None:
        """Show the lines of a node's log that were not shown yet, by their time stamps."""
        node, query = _node(pod), {"container": _CONTAINER, "timestamps": "true"}
        shown = self._shown.get(node, "")
        if last_lines is not None:
            query["tailLines"] = str(last_lines)
        elif shown:
            query["sinceTime"] = shown[:19] + "Z"

        log = self._api.text(f"{self._pods}/{pod['metadata']['name']}/log", **query)
        for line in log.splitlines():
            # Kubernetes writes nine digits of the second, so that the stamps sort as texts.
            stamp, _, text = line.partition(" ")
            if stamp > shown:
                say(f"node {node}: {text}" if node else text)
                self._shown[node] = stamp

    def _show_failed(self, pods: Sequence[Mapping[str, Any]]) -> None:
        for pod in pods:
            if _ended(pod).exit_code != 0 and _node(pod) != 0:
                self._show_log(pod, _LAST_LINES)

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            say(line)


def _node(pod: Mapping[str, Any]) -> int:
    metadata = pod.get("metadata", {})
    index = {**metadata.get("annotations", {}), **metadata.get("labels", {})}.get(_INDEX, "")
    return int(index) if str(index).isdecimal() else -1


def _ended(pod: Mapping[str, Any]) -> Ended:
    status = pod.get("status", {})
    for container in status.get("containerStatuses", []):
        terminated = container.get("state", {}).get("terminated")
        if container.get("name") == _CONTAINER and terminated is not None:
            return Ended(
                _node(pod),
                int(terminated.get("exitCode", 1)),
                str(terminated.get("reason", "")),
                str(terminated.get("message", "")),
            )
    return Ended(_node(pod), None, str(status.get("reason") or status.get("phase", "")), "")


def _path(api: KubernetesApi) -> str:
    return f"/apis/trainer.kubeflow.org/v1alpha1/namespaces/{api.namespace}/trainjobs"

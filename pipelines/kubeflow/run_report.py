"""A run with the reasons that KFP's API does not tell: why a step waits, and why one failed.

Reasons come from the logs in the object store and from Kubernetes. Both are optional; what cannot
be asked becomes a remark of one line.
"""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from kubernetes.client import ApiClient, ApiException
from urllib3.exceptions import HTTPError

from components.shared.contracts.errors import (
    ConfigError,
    PermanentError,
    StreetVisionError,
    one_line,
)
from pipelines.kubeflow.cluster import Cluster
from pipelines.kubeflow.options import StoreOptions
from pipelines.kubeflow.reader import ClusterReader
from pipelines.kubeflow.run_logs import StoredLog, failure_message, stored_logs
from pipelines.kubeflow.run_pods import RunPods, attempt_of, ending, open_cluster
from pipelines.kubeflow.run_status import RunState, RunStatus, StepState, StepStatus
from pipelines.kubeflow.run_store import RunStore, open_store, require_reachable

_FAILED = (StepState.FAILED, StepState.UNKNOWN)


@dataclass(frozen=True)
class RunReport:
    """A run with its reasons.

    notes: why a step waits or failed, by its name. others: the same of KFP's drivers, by the group
    that they would start. remarks: what could not be asked.
    """

    run: RunStatus
    notes: dict[str, str]
    others: dict[str, str]
    remarks: tuple[str, ...]

    @property
    def failure(self) -> str:
        """Why the run failed, with the name of the step or group.

        "" for a run that did not fail.
        """
        if self.run.state != RunState.FAILED:
            return ""

        failed = [
            (step.name, self.notes.get(step.name, ""))
            for step in self.run.steps
            if step.state in _FAILED
        ]
        failed += [
            (driver.name, self.others.get(driver.name, "")) for driver in self.run.failed_drivers
        ]
        told = [f"{name}: {reason}" for name, reason in failed if reason]
        if told:
            return told[0]
        if not failed:
            return "KFP names no step that failed"

        return f"{failed[0][0]} failed and left no reason" + (
            f" ({self.remarks[0]})" if self.remarks else ""
        )

    def to_json(self) -> dict[str, Any]:
        """Return the document of `status --json`."""
        document = self.run.to_json()
        for step in document["steps"]:
            step["note"] = self.notes.get(step["name"], "")
        return document | {
            "failure": self.failure,
            "others": self.others,
            "remarks": list(self.remarks),
        }


class RunReader:
    """Reads runs with their reasons.

    Asks store and Kubernetes only where they can tell something.
    """

    def __init__(self, given: StoreOptions, cluster: Cluster, pipeline: str) -> None:
        """Keep the options; no request is made before it is needed.

        given: root and address of the object store. pipeline: the name to use if KFP does not name
        the pipeline of a run.
        """
        self._given, self._cluster, self._pipeline = given, cluster, pipeline
        self._remarks: dict[str, None] = {}
        self._kubernetes: tuple[ApiClient, ClusterReader] | ConfigError | None = None
        self._stores: dict[str, RunStore | ConfigError] = {}
        self._reasons: dict[tuple[str, str], str] = {}

    @property
    def remarks(self) -> tuple[str, ...]:
        """What could not be asked since the last report."""
        return tuple(self._remarks)

    def report(self, run_id: str) -> RunReport:
        """Return a run as it is now. Raises StreetVisionError where KFP's API does not answer."""
        run = self._cluster.run(run_id)
        self._remarks.clear()
        if run.has_ended:
            notes, others = self._failures(run)
        else:
            notes, others = self._waiting(run)
        return RunReport(run, notes, others, self.remarks)

    def pods(self, run: RunStatus, *, quiet: bool = False) -> RunPods | None:
        """Return the pods of a run as they are now.

        None where Kubernetes cannot be asked, which becomes a remark.
        """
        if not run.workflow:
            return None

        try:
            api, reader = self._opened_kubernetes()
            return RunPods(api, reader.namespace, run.workflow)
        except (ConfigError, ApiException, HTTPError) as error:
            if not quiet:
                self._remark(f"nothing of the pods is shown: {_brief(error)}")
            return None

    def step_logs(self, run: RunStatus, step: StepStatus) -> Iterator[tuple[int, Iterable[str]]]:
        """Yield the logs of a step by attempt, from 0.

        They are read from the object store, and from pods whose log is not in the store.

        What cannot be read becomes a remark.
        """
        stored = {}
        for log, lines in self._stored_logs(run, step):
            stored[log.attempt] = lines
            yield log.attempt, lines

        if stored and step.state != StepState.RUNNING:
            return

        pods = self.pods(run, quiet=bool(stored))
        if pods is None:
            return
        for pod in pods.of_node(step.node):
            if attempt_of(pod) not in stored:
                yield attempt_of(pod), self._pod_lines(pods, pod)

    def live_logs(self, run: RunStatus, step: StepStatus) -> Iterator[tuple[str, Iterator[str]]]:
        """Yield name and lines of each pod of a step, as they are written.

        Raises PermanentError without Kubernetes.
        """
        pods = self.pods(run)
        if pods is None:
            raise PermanentError(
                f"--follow reads the pod of {step.name}, and {'; '.join(self.remarks)}"
            )
        for pod in pods.of_node(step.node):
            yield pod.metadata.name, self._pod_lines(pods, pod, follow=True)

    def _pod_lines(self, pods: RunPods, pod: Any, *, follow: bool = False) -> Iterator[str]:
        """Lines of a pod; what cannot be read becomes a remark."""
        with self._remarking(f"the log of pod {pod.metadata.name} is not shown"):
            yield from pods.log(pod, follow=follow)

    def store(self, run: RunStatus) -> RunStore:
        """Return the object store of the run's root, opened once.

        Raises ConfigError that says what to do.
        """
        if run.pipeline_root not in self._stores:
            reader = None
            with contextlib.suppress(ConfigError):  # the environment may say where the store is
                reader = self._opened_kubernetes()[1]

            try:
                opened = open_store(self._given, self._cluster.mode, reader, run.pipeline_root)
                require_reachable(opened)
                self._stores[run.pipeline_root] = opened
            except ConfigError as error:
                self._stores[run.pipeline_root] = error

        found = self._stores[run.pipeline_root]
        if isinstance(found, ConfigError):
            raise found

        return found

    def _stored_logs(
        self, run: RunStatus, step: StepStatus
    ) -> Iterator[tuple[StoredLog, list[str]]]:
        """Logs of a step in the object store; none, with a remark, where it cannot be read."""
        with self._remarking("no logs of the object store are shown"):
            store = self.store(run)
            folder = store.folder(
                self._cluster.pipeline_name(run, self._pipeline), run.run_id, step.task
            )
            for log in stored_logs(store.store, store.bucket, folder):
                yield (
                    log,
                    store.store.read(store.bucket, log.key)
                    .decode(errors="replace")
                    .removesuffix("\n")
                    .split("\n"),
                )

    def _failures(self, run: RunStatus) -> tuple[dict[str, str], dict[str, str]]:
        """Why steps and drivers failed, in a run that has ended."""
        notes = {
            step.name: self._step_reason(run, step) for step in run.steps if step.state in _FAILED
        }
        others = {
            driver.name: (
                self._pod_reason(run, driver.node) or "failed; its log is in Kubeflow's interface"
            )
            for driver in run.failed_drivers
        }
        return {name: reason for name, reason in notes.items() if reason}, others

    def _waiting(self, run: RunStatus) -> tuple[dict[str, str], dict[str, str]]:
        """Why steps and drivers wait, and why a step failed, in a run that goes on."""
        waiting = {step.name for step in run.steps if step.state == StepState.WAITING}
        begun = any(step.state != StepState.WAITING for step in run.steps)
        pod_waits = any(step.node for step in run.steps if step.name in waiting)
        notes, others = self._failures(run)

        pods = self.pods(run, quiet=begun and not pod_waits)
        if pods is None:
            return notes, others

        try:
            reasons = pods.waiting()
            exists = pods.workflow_exists()
        except (ApiException, HTTPError) as error:
            self._remark(f"why pods wait is not shown: {_brief(error)}")
            return notes, others

        if not exists:
            self._remark(
                f"namespace {self._cluster.mode.namespace!r} has no Workflow {run.workflow!r}: if"
                " it was removed with its schedule, KFP will show this run as running for ever; if"
                " it is in another namespace, give --namespace"
            )

        notes |= {name: reason for name, reason in reasons.items() if name in waiting}
        others |= {name: reason for name, reason in reasons.items() if run.step(name) is None}

        return notes, others

    def _step_reason(self, run: RunStatus, step: StepStatus) -> str:
        """Why a step failed: from its last log in the store, else from its pod.

        "" where neither tells.
        """
        known = (run.run_id, step.name)
        if known in self._reasons:
            return self._reasons[known]

        if step.driver_failed:
            reason = self._pod_reason(run, step.node)
            return self._told(known, f"KFP's driver failed: {reason}" if reason else "")
        return self._told(known, self._stored_reason(run, step) or self._pod_reason(run, step.node))

    def _told(self, known: tuple[str, str], reason: str) -> str:
        """Keep a reason, which stays as it is; where there is none, the next look asks again."""
        if reason:
            self._reasons[known] = reason
        return reason

    def _stored_reason(self, run: RunStatus, step: StepStatus) -> str:
        last = [
            lines
            for log, lines in self._stored_logs(run, step)
            if log.attempt == max(step.attempts - 1, 0)
        ]
        return failure_message(last[-1]) if last else ""

    def _pod_reason(self, run: RunStatus, node: str) -> str:
        pods = self.pods(run)
        found = pods.of_node(node) if pods is not None else []
        if pods is None or not found:
            return ""
        said = ""
        with contextlib.suppress(ApiException, HTTPError):  # a pod that never ran has no log
            said = failure_message(pods.log(found[-1]))
        return "; ".join(part for part in (ending(found[-1]), said) if part)

    def _opened_kubernetes(self) -> tuple[ApiClient, ClusterReader]:
        """Kubernetes' API, asked once whether it is there. Raises ConfigError."""
        if self._kubernetes is None:
            try:
                self._kubernetes = open_cluster(self._cluster.mode.namespace)
            except ConfigError as error:
                self._kubernetes = error
        if isinstance(self._kubernetes, ConfigError):
            raise self._kubernetes
        return self._kubernetes

    @contextlib.contextmanager
    def _remarking(self, what: str) -> Iterator[None]:
        """Make a remark of what cannot be read."""
        try:
            yield
        except (StreetVisionError, ApiException, HTTPError) as error:
            self._remark(f"{what}: {_brief(error)}")

    def _remark(self, text: str) -> None:
        self._remarks[text] = None


def _brief(error: Exception) -> str:
    if isinstance(error, ApiException):
        return f"Kubernetes answers HTTP {error.status} {error.reason}"
    if isinstance(error, HTTPError):
        return f"Kubernetes did not answer ({type(error).__name__})"
    return one_line(error)

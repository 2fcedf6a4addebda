"""The cluster as the checks use it: KFP's API, the pods of a training, the object store."""

import contextlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from kubernetes import client
from kubernetes.client import ApiClient, ApiException
from kubernetes.stream import stream
from kubernetes.stream.ws_client import WSClient
from urllib3.exceptions import HTTPError
from websocket import WebSocketException

from components.shared.contracts.errors import ConfigError, PermanentError, TransientError, one_line
from pipelines.kubeflow.cluster import Cluster, Trigger, Uploaded
from pipelines.kubeflow.connection import Connection
from pipelines.kubeflow.options import ApiOptions, StoreOptions
from pipelines.kubeflow.reader import kubernetes_api
from pipelines.kubeflow.run_pods import MAIN, RunPods
from pipelines.kubeflow.run_report import RunReader
from pipelines.kubeflow.run_status import RunStatus
from pipelines.kubeflow.run_store import RunStore
from pipelines.upload_data.demo import DemoUpload, delete_demo, upload_demo

TRAINING = "train-baseline"
TRAINING_MODULE = "components.train_baseline.train"
AGENT_MODULE = "components.shared.training.launch.agent"
_TIMEOUT_SECONDS = (3, 20)
_HANDSHAKE = re.compile(r"Handshake status (\d{3})")
# Run in the training's container, which has Python and no pkill: kills the first rank and prints
# its process id. The agent's arguments name the ranks' module as well.
KILL_RANK = """
import os, pathlib, signal, sys
module, agent = (name.encode() for name in sys.argv[1:])
names = [entry.name for entry in pathlib.Path("/proc").iterdir()]
for process in sorted(int(name) for name in names if name.isdigit()):
    try:
        arguments = pathlib.Path(f"/proc/{process}/cmdline").read_bytes().split(b"\\0")
    except OSError:
        continue
    if module in arguments and agent not in arguments:
        os.kill(process, signal.SIGKILL)
        print(process)
        break
"""


class NotAllowedError(PermanentError):
    """A check needs a permission that these credentials lack.

    The installation itself may be sound.
    """


@dataclass(frozen=True)
class TrainingPod:
    """The pod that trains, and what it has written so far."""

    name: str
    lines: tuple[str, ...]


class Backend(Protocol):
    """What the checks ask of a cluster. Every method raises StreetVisionError."""

    bucket: str

    def upload_demo(self) -> DemoUpload:
        """Make the store hold the demo's data and backbone."""

    def delete_demo(self) -> int:
        """Remove the demo's objects; return how many there were."""

    def submit(self, name: str, values: dict[str, Any]) -> str:
        """Start a run; return its id."""

    def run(self, run_id: str) -> RunStatus:
        """Return the state of a run."""

    def reason(self, run_id: str) -> str:
        """Return why a run failed, or why its steps wait; "" where nothing tells."""

    def cancel(self, run_id: str) -> None:
        """Tell KFP to end a run."""

    def archive(self, run_id: str) -> None:
        """Remove a run from the list of runs."""

    def create_schedule(self, name: str, seconds: int, values: dict[str, Any]) -> None:
        """Create a recurring run."""

    def scheduled_runs(self, name: str) -> list[str]:
        """Return the ids of the runs that a schedule has started."""

    def has_schedule(self, name: str) -> bool:
        """Whether there is a schedule of this name."""

    def change_schedule(self, name: str, change: str) -> None:
        """Disable or delete a schedule; `change` is that word."""

    def training_pod(self, run_id: str) -> TrainingPod | None:
        """Return the pod that trains now, None where none does."""

    def delete_pod(self, name: str) -> None:
        """Delete a pod with next to no notice, as a node that is lost does."""

    def kill_rank(self, name: str) -> str:
        """Kill the training's first process in a pod; return its process id there."""

    def training_logs(self, run_id: str) -> list[list[str]]:
        """Return the lines that each pod of the training left in the store, first pod first."""


class SmokeCluster(Cluster):
    """Kubeflow's API with what only the smoke test does."""

    def archive(self, run_id: str) -> None:
        """Archive a run."""
        with self._connection.asking(f"archive run {run_id!r}"):
            self._client.archive_run(run_id)


class RealBackend:
    """The cluster that the API's address and kubectl's configuration lead to."""

    def __init__(
        self,
        cluster: SmokeCluster,
        uploaded: Uploaded,
        runs: RunStore,
        *,
        store: StoreOptions,
        pipeline: str,
        experiment: str,
        service_account: str,
        pipeline_root: str,
    ) -> None:
        """Keep what every run of the checks is started with.

        Args:
            cluster: KFP's API.
            uploaded: the version of the pipeline that is run.
            runs: the store of the runs.
            store: root and address of that store, as the options say it.
            pipeline: name of the pipeline in Kubeflow.
            experiment: name of the experiment.
            service_account: the account that the pods run as.
            pipeline_root: the root that each run is given, "" for KFP's default.
        """
        self.bucket = runs.bucket
        self._cluster, self._uploaded, self._runs = cluster, uploaded, runs
        self._pipeline, self._experiment = pipeline, experiment
        self._service_account, self._pipeline_root = service_account, pipeline_root
        self._reader = RunReader(store, cluster, pipeline)

    @staticmethod
    def connect(api: ApiOptions) -> SmokeCluster:
        """Return the API; raises errors that name the host and what to try."""
        return SmokeCluster(Connection.resolve(api.host, api.namespace, api.ca_file))

    def upload_demo(self) -> DemoUpload:
        """Make the store hold the demo's data and backbone."""
        return upload_demo(self._runs.store, self.bucket)

    def delete_demo(self) -> int:
        """Remove the demo's objects; return how many there were."""
        return delete_demo(self._runs.store, self.bucket)

    def submit(self, name: str, values: dict[str, Any]) -> str:
        """Start a run; return its id."""
        account = self._service_account
        with contextlib.redirect_stdout(sys.stderr):  # kfp prints the run's address
            return self._cluster.submit(
                self._uploaded,
                self._experiment,
                name,
                values,
                account,
                pipeline_root=self._pipeline_root,
            )

    def run(self, run_id: str) -> RunStatus:
        """Return the state of a run."""
        return self._cluster.run(run_id)

    def reason(self, run_id: str) -> str:
        """Return why a run failed, or why its steps wait; "" where nothing tells."""
        report = self._reader.report(run_id)
        notes = [f"{name}: {note}" for name, note in (report.notes | report.others).items() if note]
        return report.failure or "; ".join(notes) or "; ".join(report.remarks)

    def cancel(self, run_id: str) -> None:
        """Tell KFP to end a run."""
        self._cluster.cancel(run_id)

    def archive(self, run_id: str) -> None:
        """Remove a run from the list of runs."""
        self._cluster.archive(run_id)

    def create_schedule(self, name: str, seconds: int, values: dict[str, Any]) -> None:
        """Create a recurring run."""
        trigger, account = Trigger(interval_seconds=seconds), self._service_account
        with contextlib.redirect_stdout(sys.stderr):
            self._cluster.schedule(
                self._uploaded,
                self._experiment,
                name,
                trigger,
                values,
                account,
                pipeline_root=self._pipeline_root,
            )

    def scheduled_runs(self, name: str) -> list[str]:
        """Return the ids of the runs that a schedule has started."""
        found = [
            item for item in self._cluster.schedules(self._pipeline) if item.display_name == name
        ]
        if not found:
            return []
        schedule, created = str(found[0].recurring_run_id), found[0].created_at
        return [run.run_id for run in self._runs_since(created) if run.recurring_run_id == schedule]

    def has_schedule(self, name: str) -> bool:
        """Whether there is a schedule of this name."""
        return any(item.display_name == name for item in self._cluster.schedules(self._pipeline))

    def change_schedule(self, name: str, change: str) -> None:
        """Disable or delete a schedule; `change` is that word."""
        self._cluster.change_schedule(self._pipeline, name, change)

    def training_pod(self, run_id: str) -> TrainingPod | None:
        """Return the pod that trains now, None where none does."""
        run = self._cluster.run(run_id)
        step = run.step(TRAINING)
        if step is None or not step.node or not run.workflow:
            return None

        with _kubernetes("show the training's pod") as api:
            pods = RunPods(api, self._cluster.mode.namespace, run.workflow)
            running = [pod for pod in pods.of_node(step.node) if _is_running(pod)]
            return (
                TrainingPod(running[-1].metadata.name, tuple(pods.log(running[-1])))
                if running
                else None
            )

    def delete_pod(self, name: str) -> None:
        """Delete a pod with a second's notice, in which a quick training cannot end."""
        with _kubernetes(f"delete pod {name}") as api:
            client.CoreV1Api(api).delete_namespaced_pod(
                name,
                self._cluster.mode.namespace,
                grace_period_seconds=1,
                _request_timeout=_TIMEOUT_SECONDS,
            )

    def kill_rank(self, name: str) -> str:
        """Kill the training's first process in a pod; return its process id there."""
        with _kubernetes(f"start a process in pod {name}") as api:
            process: WSClient = stream(
                client.CoreV1Api(api).connect_get_namespaced_pod_exec,
                name,
                self._cluster.mode.namespace,
                container=MAIN,
                command=["python3", "-c", KILL_RANK, TRAINING_MODULE, AGENT_MODULE],
                stdin=False,
                stdout=True,
                stderr=True,
                tty=False,
                _preload_content=False,
            )
            with contextlib.closing(process):
                process.run_forever(timeout=_TIMEOUT_SECONDS[1])
                killed, said = (
                    str(process.read_stdout()).strip(),
                    " ".join(str(process.read_stderr()).split()),
                )

        if not killed:
            raise TransientError(
                f"pod {name}: no process of {TRAINING_MODULE} killed; {said[-300:] or 'none runs'}"
            )
        return killed

    def training_logs(self, run_id: str) -> list[list[str]]:
        """Return the lines that each pod of the training left in the store, first pod first."""
        run = self._cluster.run(run_id)
        step = run.step(TRAINING)
        found = [list(lines) for _, lines in self._reader.step_logs(run, step)] if step else []
        if not found and self._reader.remarks:
            raise TransientError(self._reader.remarks[0])
        return found

    def _runs_since(self, time: datetime) -> Iterator[RunStatus]:
        for run in self._cluster.runs(self._pipeline):
            if run.created is not None and run.created < time:
                return
            yield run


def _is_running(pod: Any) -> bool:
    """Whether the step's own container runs and nobody has asked the pod to end."""
    if pod.metadata.deletion_timestamp is not None:
        return False
    statuses = pod.status.container_statuses or []
    return any(status.name == MAIN and status.state and status.state.running for status in statuses)


@contextlib.contextmanager
def _kubernetes(what: str) -> Iterator[ApiClient]:
    """Yield a client of its own, since `stream` replaces a method of it for a time.

    What Kubernetes refuses becomes an error of ours; a right that is not there is no fault of the
    installation.
    """
    try:
        api = kubernetes_api()
    except ConfigError as error:
        raise NotAllowedError(one_line(error)) from None

    try:
        yield api
    except ApiException as error:
        # Of a refused upgrade to a web socket, the client tells the status in words only.
        status = int(found[1]) if (found := _HANDSHAKE.search(str(error.reason))) else error.status
        kind = NotAllowedError if status in (401, 403) else TransientError
        raise kind(
            f"Kubernetes refused to {what}: HTTP {status} {'' if found else error.reason}".rstrip()
        ) from None
    except (HTTPError, WebSocketException, OSError) as error:
        raise TransientError(
            f"Kubernetes closed the connection during: {what} ({type(error).__name__})"
        ) from None
    finally:
        api.rest_client.pool_manager.clear()

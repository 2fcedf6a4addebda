"""What can be done with the pipeline in Kubeflow? Thin over kfp.Client; every error names host, request and fix."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import kfp_server_api

from components.shared.errors import PermanentError
from pipelines.connection import Connection

PAGE = 100
ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")


@dataclass(frozen=True)
class Uploaded:
    """A version of the pipeline in Kubeflow. created: whether this call made it."""

    pipeline_id: str
    version_id: str
    created: bool


@dataclass(frozen=True)
class Step:
    """One task of a run, as the API tells it; times are None where it has not begun or ended."""

    name: str
    state: str
    start: datetime | None
    end: datetime | None
    pod: str
    error: str


@dataclass(frozen=True)
class Trigger:
    """When a schedule fires: a cron expression of six fields (seconds first), or a number of seconds."""

    cron: str | None = None
    interval_seconds: int | None = None


class Cluster:
    """Kubeflow's API at one host, in one namespace."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._client, self._namespace = connection.client()

    def upload(self, package: Path, name: str, version: str) -> Uploaded:
        """Upload as a new version of the pipeline `name`; a version of this name is the same content and left alone."""
        with self._connection.asking(f"upload version {version!r} of pipeline {name!r}"):
            pipeline = self._pipeline(name)
            for known in self._pages(self._client.list_pipeline_versions, "pipeline_versions", pipeline):
                if known.display_name == version:
                    return Uploaded(pipeline, known.pipeline_version_id, created=False)
            made = self._client.upload_pipeline_version(str(package), version, pipeline_id=pipeline)
            return Uploaded(pipeline, made.pipeline_version_id, created=True)

    def submit(
        self, uploaded: Uploaded, experiment: str, name: str, values: Mapping[str, Any], service_account: str
    ) -> str:
        """Start a run; returns its id."""
        with self._connection.asking(f"start run {name!r} in experiment {experiment!r}"):
            run = self._client.run_pipeline(
                self._experiment(experiment),
                name,
                params=dict(values),
                pipeline_id=uploaded.pipeline_id,
                version_id=uploaded.version_id,
                service_account=service_account,
            )
            return str(run.run_id)

    def run(self, run_id: str) -> tuple[str, str, list[Step]]:
        """Name, state and steps of a run, in order of their start."""
        with self._connection.asking(f"show run {run_id!r}"):
            run = self._client.get_run(run_id)
        details = (run.run_details and run.run_details.task_details) or []
        steps = [_step(task) for task in details if task.display_name and not _internal(task.display_name)]
        return run.display_name, run.state or "PENDING", sorted(steps, key=lambda s: (s.start is None, str(s.start)))

    def latest_run(self) -> str:
        """Id of the run that was started last. Raises PermanentError where there is none."""
        with self._connection.asking("list the runs"):
            listed = self._client.list_runs(page_size=1, sort_by="created_at desc", namespace=self._namespace)
        if not listed.runs:
            raise PermanentError(f"{self._connection.host}: no runs in namespace {self._connection.namespace!r}")
        return str(listed.runs[0].run_id)

    def log(self, run_id: str, step: Step) -> str:
        """What the step's pod wrote, as the API keeps it."""
        with self._connection.asking(f"show the log of step {step.name!r} of run {run_id!r}"):
            api = self._client._run_api.api_client
            response = api.call_api(
                f"/apis/v1alpha1/runs/{run_id}/nodes/{step.pod}/log",
                "GET",
                auth_settings=["Bearer"],
                _preload_content=False,
            )
            return str(response.data.decode(errors="replace"))

    def schedule(
        self,
        uploaded: Uploaded,
        experiment: str,
        name: str,
        trigger: Trigger,
        values: Mapping[str, Any],
        service_account: str,
        *,
        enabled: bool = True,
    ) -> bool:
        """Create the recurring run `name`, or replace it; returns whether there was one."""
        old = [item.recurring_run_id for item in self.schedules() if item.display_name == name]
        with self._connection.asking(f"create schedule {name!r} in experiment {experiment!r}"):
            self._client.create_recurring_run(
                self._experiment(experiment),
                name,
                cron_expression=trigger.cron,
                interval_second=trigger.interval_seconds,
                max_concurrency=1,
                no_catchup=True,
                params=dict(values),
                pipeline_id=uploaded.pipeline_id,
                version_id=uploaded.version_id,
                enabled=enabled,
                service_account=service_account,
            )
        # The old one goes last: were it first, a failure in between would leave no schedule at all.
        for recurring_run_id in old:
            with self._connection.asking(f"delete the schedule that {name!r} replaces ({recurring_run_id})"):
                self._client.delete_recurring_run(recurring_run_id)
        return bool(old)

    def schedules(self) -> list[Any]:
        """The namespace's recurring runs, as KFP's models, sorted by name."""
        with self._connection.asking("list the schedules"):
            found = list(self._pages(self._client.list_recurring_runs, "recurring_runs", namespace=self._namespace))
        return sorted(found, key=lambda item: str(item.display_name))

    def change_schedule(self, name: str, change: str) -> None:
        """`change` is enable, disable or delete. Raises PermanentError where there is no such schedule."""
        ids = [item.recurring_run_id for item in self.schedules() if item.display_name == name]
        if not ids:
            known = ", ".join(str(item.display_name) for item in self.schedules()) or "none"
            raise PermanentError(f"{self._connection.host}: no schedule {name!r}; there are: {known}")
        for recurring_run_id in ids:
            with self._connection.asking(f"{change} schedule {name!r}"):
                getattr(self._client, f"{change}_recurring_run")(recurring_run_id)

    def _pipeline(self, name: str) -> str:
        """Id of the pipeline, made where it is new."""
        for known in self._pages(self._client.list_pipelines, "pipelines", namespace=self._namespace):
            if known.display_name == name:
                return str(known.pipeline_id)
        body = kfp_server_api.V2beta1Pipeline(display_name=name, name=name, namespace=self._namespace)
        return str(self._client.pipelines.pipeline_service_create_pipeline(body).pipeline_id)

    def _experiment(self, name: str) -> str:
        """Id of the experiment, made where it is new."""
        made = self._client.create_experiment(name, namespace=self._namespace)
        return str(made.experiment_id)

    @staticmethod
    def _pages(list_page: Callable[..., Any], key: str, *arguments: Any, **options: Any) -> Iterator[Any]:
        token = ""
        while True:
            page = list_page(*arguments, page_token=token, page_size=PAGE, **options)
            yield from getattr(page, key) or []
            token = page.next_page_token or ""
            if not token:
                return


def _step(task: Any) -> Step:
    pods = [child.pod_name for child in task.child_tasks or [] if child.pod_name]
    error = " ".join(str(task.error.message).split()) if task.error else ""
    return Step(task.display_name, task.state or "PENDING", task.start_time, task.end_time, "".join(pods[:1]), error)


def _internal(name: str) -> bool:
    """Argo's own nodes: drivers and the DAG."""
    return name.endswith(("-driver", "executor")) or name in ("root", "exit-handler-1")

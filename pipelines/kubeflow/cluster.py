"""The pipeline in Kubeflow, by KFP's API: versions, runs and schedules.

Every error names host, request and fix.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kfp_server_api
from urllib3.exceptions import HTTPError

from components.shared.contracts.errors import PermanentError, TransientError
from pipelines.graph import steps_of
from pipelines.kfp_private import rest_client
from pipelines.kubeflow.connection import TIMEOUT_SECONDS, Connection
from pipelines.kubeflow.options import ApiOptions
from pipelines.kubeflow.run_status import RunStatus, run_status

PAGE = 100
RUN_PAGE = 20  # a run comes with all its nodes, some 50 kB
_RUNS, _PIPELINES = "/apis/v2beta1/runs", "/apis/v2beta1/pipelines"
_EQUALS = 1  # operation of a filter (backend/api/v2beta1/filter.proto)


@dataclass(frozen=True)
class Uploaded:
    """A version of the pipeline in Kubeflow. created: whether this call made it."""

    pipeline_id: str
    version_id: str
    created: bool


@dataclass(frozen=True)
class Trigger:
    """Times at which a schedule starts runs.

    A cron expression of six fields (seconds first), or a number of seconds.
    """

    cron: str | None = None
    interval_seconds: int | None = None


def connect(api: ApiOptions) -> "Cluster":
    """Open the API that the options of every verb name.

    Raises errors that name the host and what to try.
    """
    return Cluster(Connection.resolve(api.host, api.namespace, api.ca_file))


class Cluster:
    """Kubeflow's API at one host, for one namespace.

    mode: single-user or multi-user, with the namespace of the runs.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._client, self.mode = connection.open()
        self._namespace = self.mode.api_namespace
        self._documents: dict[str, dict[str, Any]] = {}

    def upload(self, package: Path, name: str, version: str) -> Uploaded:
        """Upload as a new version of the pipeline `name`.

        A version of this name is the same content and left alone.
        """
        with self._connection.asking(f"upload version {version!r} of pipeline {name!r}"):
            pipeline = self._pipeline_made(name)
            for known in self._pages(
                self._client.list_pipeline_versions, "pipeline_versions", pipeline
            ):
                if known.display_name == version:
                    return Uploaded(pipeline, known.pipeline_version_id, created=False)

            made = self._client.upload_pipeline_version(str(package), version, pipeline_id=pipeline)
            return Uploaded(pipeline, made.pipeline_version_id, created=True)

    def submit(
        self,
        uploaded: Uploaded,
        experiment: str,
        name: str,
        values: Mapping[str, Any],
        service_account: str,
        *,
        pipeline_root: str = "",
    ) -> str:
        """Start a run, with its artifacts below `pipeline_root` ("": KFP's default).

        Return its id.
        """
        with self._connection.asking(f"start run {name!r} in experiment {experiment!r}"):
            run = self._client.run_pipeline(
                self._experiment(experiment),
                name,
                params=dict(values),
                pipeline_id=uploaded.pipeline_id,
                version_id=uploaded.version_id,
                service_account=service_account,
                pipeline_root=pipeline_root or None,
            )
            return str(run.run_id)

    def run(self, run_id: str) -> RunStatus:
        """Return the state of a run and of its steps.

        Steps have the order of the graph if KFP still has the version.
        """
        document = self._get(f"{_RUNS}/{run_id}", f"show run {run_id!r}")
        spec = document.get("pipeline_spec") or self._spec_of(document)
        return run_status(document, _steps(spec))

    def runs(self, pipeline: str) -> Iterator[RunStatus]:
        """Yield the runs of the pipeline with this name, newest first.

        Raises PermanentError where there is none.
        """
        pipeline_id = self._pipeline_id(pipeline)
        for document in self._all_runs(f"list the runs of pipeline {pipeline!r}"):
            if (document.get("pipeline_version_reference") or {}).get("pipeline_id") == pipeline_id:
                yield run_status(document)

    def newest_run(self, pipeline: str) -> str:
        """Return the id of the pipeline's run that was started last.

        Raises PermanentError where there is none.
        """
        for run in self.runs(pipeline):
            return run.run_id
        raise PermanentError(
            f"{self.mode.host}: pipeline {pipeline!r} has no run in namespace"
            f" {self.mode.namespace!r}; start one: python -m pipelines submit"
        )

    def pipeline_name(self, run: RunStatus, otherwise: str) -> str:
        """Return the name of the run's pipeline, a folder below the pipeline root.

        `otherwise` where KFP has none.
        """
        if not run.pipeline_id:
            return otherwise

        spec = self._version_spec(run.pipeline_id, run.version_id)
        named = (
            spec.get("pipeline_spec", spec).get("pipelineInfo", {})
            if isinstance(spec, Mapping)
            else {}
        )

        return str(named.get("name") or self._pipeline_display_name(run.pipeline_id) or otherwise)

    def has_interface(self) -> bool:
        """Return whether the API's address is also the user interface's, as behind a gateway."""
        api = rest_client(self._client)
        try:
            response = api.call_api(
                "/", "GET", _preload_content=False, _request_timeout=TIMEOUT_SECONDS
            )
        except (kfp_server_api.ApiException, HTTPError, OSError):
            return False
        return str(response.getheader("Content-Type") or "").startswith("text/html")

    def cancel(self, run_id: str) -> None:
        """Tell KFP to end a run; Argo then ends its pods."""
        with self._connection.asking(f"cancel run {run_id!r}"):
            self._client.terminate_run(run_id)

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
        pipeline_root: str = "",
    ) -> bool:
        """Create the recurring run `name`, or replace it; return whether there was one."""
        of_pipeline = self._schedules_of(uploaded.pipeline_id)
        old = [item.recurring_run_id for item in of_pipeline if item.display_name == name]
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
                pipeline_root=pipeline_root or None,
            )

        # The old one goes last: were it first, a failure in between would leave no schedule at all.
        for recurring_run_id in old:
            with self._connection.asking(
                f"delete the schedule that {name!r} replaces ({recurring_run_id})"
            ):
                self._client.delete_recurring_run(recurring_run_id)

        return bool(old)

    def schedules(self, pipeline: str) -> list[Any]:
        """Return the pipeline's recurring runs of this name, as KFP's models, sorted by name."""
        with self._connection.asking("list the pipelines"):
            ids = [
                str(item.pipeline_id) for item in self._pipelines() if item.display_name == pipeline
            ]
        return self._schedules_of(ids[0]) if ids else []

    def active_runs_of_schedule(self, pipeline: str, name: str) -> list[RunStatus]:
        """Return the runs that this schedule started and that have not ended.

        Raises PermanentError without it.
        """
        active = []
        for recurring_run_id in self._schedule_ids(pipeline, name):
            predicate = {
                "operation": _EQUALS,
                "key": "recurring_run_id",
                "stringValue": recurring_run_id,
            }

            what = f"list the runs of schedule {name!r}"
            for document in self._all_runs(what, filter=json.dumps({"predicates": [predicate]})):
                run = run_status(document)
                if run.recurring_run_id == recurring_run_id and not run.has_ended:
                    active.append(run)

        return active

    def change_schedule(self, pipeline: str, name: str, change: str) -> None:
        """Enable, disable or delete a schedule; `change` is that word.

        Raises PermanentError without it.
        """
        for recurring_run_id in self._schedule_ids(pipeline, name):
            with self._connection.asking(f"{change} schedule {name!r}"):
                getattr(self._client, f"{change}_recurring_run")(recurring_run_id)

    def _schedule_ids(self, pipeline: str, name: str) -> list[str]:
        schedules = self.schedules(pipeline)
        ids = [str(item.recurring_run_id) for item in schedules if item.display_name == name]
        if not ids:
            known = ", ".join(str(item.display_name) for item in schedules) or "none"
            raise PermanentError(
                f"{self.mode.host}: no schedule {name!r} of pipeline {pipeline!r} in namespace "
                f"{self.mode.namespace!r}; there are: {known}"
            )

        return ids

    def _schedules_of(self, pipeline_id: str) -> list[Any]:
        with self._connection.asking("list the schedules"):
            found = list(
                self._pages(
                    self._client.list_recurring_runs, "recurring_runs", namespace=self._namespace
                )
            )
        mine = [item for item in found if _pipeline_of(item) == pipeline_id]
        return sorted(mine, key=lambda item: str(item.display_name))

    def _all_runs(self, what: str, **query: Any) -> Iterator[dict[str, Any]]:
        """Documents of the namespace's runs, newest first."""
        token = None
        while True:
            page = self._get(
                _RUNS,
                what,
                namespace=self._namespace,
                sort_by="created_at desc",
                page_size=RUN_PAGE,
                page_token=token,
                **query,
            )

            yield from page.get("runs") or []
            token = page.get("next_page_token")
            if not token:
                return

    def _spec_of(self, document: Mapping[str, Any]) -> Any:
        """Specification of the pipeline version that a run was started from.

        None where KFP has it no more.
        """
        reference = document.get("pipeline_version_reference") or {}
        if not reference.get("pipeline_version_id"):
            return None
        return self._version_spec(
            str(reference.get("pipeline_id")), str(reference["pipeline_version_id"])
        )

    def _version_spec(self, pipeline_id: str, version_id: str) -> Any:
        path = f"{_PIPELINES}/{pipeline_id}/versions/{version_id}"
        return self._known(path, f"show version {version_id!r} of the run's pipeline").get(
            "pipeline_spec"
        )

    def _pipeline_display_name(self, pipeline_id: str) -> str:
        found = self._known(f"{_PIPELINES}/{pipeline_id}", f"show pipeline {pipeline_id!r}")
        return str(found.get("display_name") or "")

    def _known(self, path: str, what: str) -> dict[str, Any]:
        """A document that does not change, asked for once.

        Empty where KFP has it no more or does not answer now.
        """
        if path not in self._documents:
            try:
                self._documents[path] = self._get(path, what)
            except PermanentError:
                self._documents[path] = {}
            except TransientError:
                return {}  # the state of a run is worth showing without it
        return self._documents[path]

    def _get(self, path: str, what: str, **query: Any) -> dict[str, Any]:
        return self._connection.get(self._client, path, what, **query)

    def _pipeline_id(self, name: str) -> str:
        """Id of the pipeline. Raises PermanentError where there is none of this name."""
        with self._connection.asking("list the pipelines"):
            known = {str(item.display_name): str(item.pipeline_id) for item in self._pipelines()}

        if name not in known:
            shown = ", ".join(sorted(known)) or "none"
            raise PermanentError(
                f"{self.mode.host}: no pipeline {name!r} in namespace {self.mode.namespace!r}"
                f" ({self.mode.origin}); there are: {shown}; upload it: python -m pipelines upload,"
                " or give --pipeline or --namespace"
            )

        return known[name]

    def _pipeline_made(self, name: str) -> str:
        """Id of the pipeline, made where it is new."""
        for known in self._pipelines():
            if known.display_name == name:
                return str(known.pipeline_id)
        body = kfp_server_api.V2beta1Pipeline(
            display_name=name, name=name, namespace=self._namespace
        )
        return str(self._client.pipelines.pipeline_service_create_pipeline(body).pipeline_id)

    def _pipelines(self) -> Iterator[Any]:
        return self._pages(self._client.list_pipelines, "pipelines", namespace=self._namespace)

    def _experiment(self, name: str) -> str:
        """Id of the experiment, made where it is new."""
        made = self._client.create_experiment(name, namespace=self._namespace)
        return str(made.experiment_id)

    @staticmethod
    def _pages(
        list_page: Callable[..., Any], key: str, *arguments: Any, **options: Any
    ) -> Iterator[Any]:
        token = ""
        while True:
            page = list_page(*arguments, page_token=token, page_size=PAGE, **options)
            yield from getattr(page, key) or []
            token = page.next_page_token or ""
            if not token:
                return


def _pipeline_of(schedule: Any) -> str:
    reference = schedule.pipeline_version_reference
    return str(reference.pipeline_id) if reference else ""


def _steps(spec: Any) -> tuple[str, ...]:
    """Names of the steps of a specification.

    () where it cannot be read, as of a pipeline that is not ours.
    """
    if not isinstance(spec, Mapping):
        return ()
    try:
        return tuple(steps_of(spec.get("pipeline_spec", spec)))
    except (AttributeError, LookupError, TypeError):
        return ()

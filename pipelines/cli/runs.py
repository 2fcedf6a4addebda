"""Verbs for runs in Kubeflow: start one, look at it, wait for it, fetch its artifacts."""

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import TransientError
from pipelines.cli.declare import RUNS, verb
from pipelines.cli.options import (
    DAY,
    DryRun,
    GraphOptions,
    ParameterOptions,
    Poll,
    ResourceOptions,
    RunOptions,
    Timeout,
)
from pipelines.cli.packages import megabytes, show
from pipelines.cli.submission import Submission, root_of_runs
from pipelines.kubeflow.options import ApiOptions, StoreOptions

if TYPE_CHECKING:
    from pipelines.kubeflow.cluster import Cluster
    from pipelines.kubeflow.run_report import RunReader
    from pipelines.kubeflow.run_store import RunStore

app = typer.Typer()

_EXIT_CODES = "exit code: 0 succeeded, 1 failed, 2 cancelled, 124 still running after --timeout"
_SUBMIT_NOTES = """
examples:
  python -m pipelines submit --demo --profile cpu --wait
  python -m pipelines submit --param data=s3://bucket/photos --param backbone=s3://bucket/dinov2
  python -m pipelines submit --params run.yaml --dry-run

exit code with --wait: 0 succeeded, 1 failed, 2 cancelled, 124 still running after --timeout
"""
_STATUS_NOTES = f"""
examples:
  python -m pipelines status
  python -m pipelines status RUN_ID --watch

Why a step failed is the last line of its log in the object store: that of KFP's pipeline root,
opened with {Variable.S3_ENDPOINT}, {Variable.S3_ACCESS_KEY} and {Variable.S3_SECRET_KEY}, else as
the cluster's kfp-launcher says. Pods, which stay for an hour, are read by Kubernetes. From outside
the cluster forward the store's port: --store-endpoint.
"""
_LOGS_NOTES = """
examples:
  python -m pipelines logs --follow
  python -m pipelines logs RUN_ID --step train-baseline

A running step is read from its pod, by Kubernetes; one that has ended from the object store, as for
status.
"""
_WAIT_NOTES = f"""
example:
  python -m pipelines wait RUN_ID --timeout 7200

{_EXIT_CODES}
"""
_CANCEL_NOTES = """
example:
  python -m pipelines cancel RUN_ID
"""
_OPEN_NOTES = """
example:
  python -m pipelines open
"""
_RUNS_NOTES = """
example:
  python -m pipelines runs --limit 5
"""
_DOWNLOAD_NOTES = """
example:
  python -m pipelines download RUN_ID --output results

The store is found as for status. The artifacts of a cached step lie with the run that made them.
"""

RunId = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN_ID", help="The run.", show_default="the newest run of the pipeline"
    ),
]


@verb(app, "submit", RUNS, notes=_SUBMIT_NOTES)
def submit(
    parameters: ParameterOptions,
    api: ApiOptions,
    store: StoreOptions,
    graph: GraphOptions,
    resources: ResourceOptions,
    run: RunOptions,
    demo: Annotated[
        bool,
        typer.Option(
            "--demo",
            help="Use generated scenes and a small random backbone, copied to the bucket of the"
            " pipeline root.",
        ),
    ] = False,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            metavar="NAME",
            help="Name of the run.",
            show_default="the pipeline's name and the time",
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Show the steps as they change; end with the run.")
    ] = False,
    timeout: Timeout = DAY,
    poll: Poll = 10,
    dry_run: DryRun = False,
) -> None:
    """Start a run of the pipeline as it is here, and upload it if it is new."""
    submission = Submission(
        api=api,
        store=store,
        parameters=parameters,
        graph=graph,
        resources=resources,
        run=run,
    )

    title = name or f"{api.pipeline} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    started = _submit(submission, title, demo=demo, dry_run=dry_run)
    if wait and started is not None:
        from pipelines.cli.watch import wait_for
        from pipelines.kubeflow.run_report import RunReader

        cluster, run_id = started
        reader = RunReader(store, cluster, api.pipeline)
        sys.exit(wait_for(reader, run_id, timeout, poll))


def _open_run(
    api: ApiOptions, store: StoreOptions, run: str | None
) -> "tuple[Cluster, RunReader, str]":
    """Connect to Kubeflow; return the API, a reader of runs, and the given or the newest run."""
    from pipelines.kubeflow.cluster import connect
    from pipelines.kubeflow.run_report import RunReader

    cluster = connect(api)
    run_id = run or cluster.newest_run(api.pipeline)

    return cluster, RunReader(store, cluster, api.pipeline), run_id


@verb(app, "status", RUNS, notes=_STATUS_NOTES)
def status(
    api: ApiOptions,
    store: StoreOptions,
    run: RunId = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it again and again until the run ends.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document; with --watch one each time.")
    ] = False,
    poll: Poll = 10,
) -> None:
    """Show the state of a run and its steps, and why one waits or failed."""
    from pipelines.cli.watch import show_status

    _, reader, run_id = _open_run(api, store, run)
    show_status(reader, run_id, poll if watch else None, as_json=json)


@verb(app, "logs", RUNS, notes=_LOGS_NOTES)
def logs(
    api: ApiOptions,
    store: StoreOptions,
    run: RunId = None,
    step: Annotated[
        str | None,
        typer.Option(
            "--step", metavar="STEP", help="Show only this one, for example train-baseline."
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Show lines as they are written, until the run ends.")
    ] = False,
    poll: Poll = 10,
) -> None:
    """Show what the steps of a run wrote."""
    from pipelines.cli.logs import followed_lines, stored_lines

    cluster, reader, run_id = _open_run(api, store, run)

    if follow:
        lines = followed_lines(reader, cluster, run_id, step, poll)
    else:
        lines = stored_lines(reader, cluster.run(run_id), step)

    for line in lines:
        print(line, flush=follow)
    for remark in reader.remarks:
        print(f"note: {remark}", file=sys.stderr)


@verb(app, "wait", RUNS, notes=_WAIT_NOTES)
def wait(
    api: ApiOptions,
    store: StoreOptions,
    run: RunId = None,
    timeout: Timeout = DAY,
    poll: Poll = 10,
) -> None:
    """Wait for the end of a run; show its steps as they change, and why it failed."""
    from pipelines.cli.watch import wait_for

    _, reader, run_id = _open_run(api, store, run)
    if not run:
        print(f"waiting for run {run_id}", flush=True)
    sys.exit(wait_for(reader, run_id, timeout, poll))


@verb(app, "cancel", RUNS, notes=_CANCEL_NOTES)
def cancel(
    run: Annotated[str, typer.Argument(metavar="RUN_ID", help="The run.")], api: ApiOptions
) -> None:
    """Cancel a run that has not ended."""
    from pipelines.kubeflow.cluster import connect

    cluster = connect(api)
    found = cluster.run(run)
    if found.has_ended:
        print(f"run {run} has ended already: {found.state}")
        return

    try:
        cluster.cancel(run)
    except TransientError as error:
        raise TransientError(
            f"{error}; where the run's Workflow was removed with its schedule, KFP cannot end the"
            f" run: archive it in the interface, {_address(cluster, run)}"
        ) from error

    print(f"run {run} is being cancelled; its pods end within a minute. KFP will call it FAILED")


@verb(app, "open", RUNS, notes=_OPEN_NOTES)
def open_(api: ApiOptions, run: RunId = None) -> None:
    """Print the address of a run in Kubeflow's interface."""
    from pipelines.kubeflow.cluster import connect

    cluster = connect(api)
    run_id = run or cluster.newest_run(api.pipeline)
    print(_address(cluster, run_id))

    if not cluster.has_interface():
        print(
            f"note: {cluster.mode.host} is the API without the interface; forward the interface's"
            " port (kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80) and open the same"
            " path at http://localhost:8080",
            file=sys.stderr,
        )


@verb(app, "runs", RUNS, notes=_RUNS_NOTES)
def runs(
    api: ApiOptions,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", help="Largest number of runs to list.")
    ] = 20,
) -> None:
    """List the newest runs of the pipeline."""
    from itertools import islice

    from pipelines.kubeflow.cluster import connect
    from pipelines.kubeflow.run_text import runs_lines

    found = list(islice(connect(api).runs(api.pipeline), limit))
    for line in runs_lines(found, datetime.now(UTC)):
        print(line)
    if not found:
        print(f"pipeline {api.pipeline} has no run")


@verb(app, "download", RUNS, notes=_DOWNLOAD_NOTES)
def download(
    api: ApiOptions,
    store: StoreOptions,
    run: RunId = None,
    output: Annotated[
        Path, typer.Option("--output", metavar="FOLDER", help="Folder to write to.")
    ] = Path("downloads"),
) -> None:
    """Copy a run's artifacts from the object store and verify them."""
    from pipelines.kubeflow.cluster import connect
    from pipelines.kubeflow.download import download_run
    from pipelines.kubeflow.run_report import RunReader
    from pipelines.kubeflow.run_store import has_credentials, open_store

    # If the options and the environment name everything, KFP is not asked.
    if run and store.root and has_credentials(os.environ):
        run_id, pipeline, opened = run, api.pipeline, open_store(store, None, None)
    else:
        cluster = connect(api)
        run_id = run or cluster.newest_run(api.pipeline)
        found = cluster.run(run_id)
        pipeline = cluster.pipeline_name(found, api.pipeline)
        opened = RunReader(store, cluster, api.pipeline).store(found)

    for path, verified in download_run(
        opened.store, opened.root.uri, pipeline, run_id, output / run_id
    ):
        print(f"{path}  {'verified' if verified else 'not an artifact of ours, copied'}")


def _submit(
    submission: Submission, name: str, *, demo: bool, dry_run: bool
) -> "tuple[Cluster, str] | None":
    """Start a run; return the cluster and the run's id, or None after a dry run."""
    from pipelines.kubeflow.cluster import connect
    from pipelines.upload_data.location import store_of_runs

    cluster = connect(submission.api) if demo else None
    demo_store = store_of_runs(submission.store, cluster.mode) if cluster else None
    values = submission.values(demo_store)
    file, version = submission.package()
    if dry_run:
        show(submission.request(name, version, values))
        return None

    cluster = cluster or connect(submission.api)
    if demo_store is not None:
        submission.check_target(cluster, {})  # before 22 MB are sent
        _upload_demo(demo_store)

    submission.check_target(cluster, values)
    uploaded = cluster.upload(file, submission.api.pipeline, version)
    run_id = cluster.submit(
        uploaded,
        submission.run.experiment,
        name,
        values,
        submission.run.service_account,
        pipeline_root=root_of_runs(submission.store, cluster),
    )

    print(f"run {run_id} started", flush=True)

    return cluster, run_id


def _upload_demo(runs: "RunStore") -> None:
    from pipelines.upload_data.demo import PREFIX, upload_demo

    done = upload_demo(runs.store, runs.bucket)
    print(
        f"demo: {done.n_files} files, {megabytes(done.n_bytes)}, at s3://{runs.bucket}/{PREFIX}; "
        f"{megabytes(done.sent_bytes)} of them sent",
        flush=True,
    )


def _address(cluster: "Cluster", run_id: str) -> str:
    return f"{cluster.mode.host}/#/runs/details/{run_id}"

"""Verbs that look at a whole cluster: `doctor` and `smoke`."""

import contextlib
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.declare import CLUSTER, verb
from pipelines.cli.options import GraphOptions, Poll, ResourceOptions, RunOptions
from pipelines.cli.submission import root_of_runs
from pipelines.kubeflow.options import ApiOptions, StoreOptions
from pipelines.names import key_of

if TYPE_CHECKING:
    from pipelines.doctor import Finding
    from pipelines.smoke.backend import RealBackend

app = typer.Typer()

_STATUS_WIDTH, _CHECK_WIDTH = 9, 26
_DOCTOR_NOTES = """
example:
  python -m pipelines doctor --profile cpu --store-endpoint localhost:9000

Kubernetes is asked as kubectl would. Nothing is changed, except for a small object that is written
to the store and deleted, to see whether the store honours conditional writes. warning: runs work,
and something should be mended all the same. unknown: it cannot be looked at from here.

exit code: 0 if nothing is missing, else 1
"""
_SMOKE_NOTES = """
example:
  python -m pipelines smoke --profile cpu --store-endpoint localhost:9000 --delete-data

Uses the cluster that KFP's API and kubectl's configuration point to as users and accidents do, on
generated data; about 45 minutes on two CPUs. At the end, and after Ctrl-C, runs are archived and
schedules deleted; artifacts stay, since KFP's cache points later runs to them.

checks: demo-data, run, second-run, schedule, pod-deleted, process-killed, wrong-data

exit code: 0 if no check failed, 1 if one did, 130 after Ctrl-C, 143 after SIGTERM
"""


@verb(app, "doctor", CLUSTER, notes=_DOCTOR_NOTES)
def doctor(
    api: ApiOptions,
    resources: ResourceOptions,
    graph: GraphOptions,
    kfp_namespace: Annotated[
        str | None,
        typer.Option(
            "--kfp-namespace",
            metavar="NAME",
            help="Namespace of KFP itself. Without it: that of its one user, or kubeflow.",
        ),
    ] = None,
    store_endpoint: Annotated[
        str,
        typer.Option(
            "--store-endpoint",
            metavar="HOST:PORT",
            help="Forwarded port of the object store, if its own address is not reachable.",
        ),
    ] = "",
) -> None:
    """Check whether a cluster has what a run needs."""
    from pipelines.catalog import images_of
    from pipelines.doctor import Status, Where, run_checks

    where = Where(
        host=api.host,
        namespace=api.namespace,
        ca_file=api.ca_file,
        pipeline=api.pipeline,
        kfp_namespace=kfp_namespace,
        store_endpoint=store_endpoint,
    )

    profile = resources.load()
    images = images_of(profile, graph.variant_of(api))
    counts, forbidden = dict.fromkeys(Status, 0), False

    for finding in run_checks(where, profile, images):
        counts[finding.status] += 1
        forbidden = forbidden or "may not look" in finding.found
        print(_shown(finding), flush=True)

    print(", ".join(f"{count} {status}" for status, count in counts.items() if count))
    if forbidden:
        print("where these credentials may not look, have an admin run this")
    if counts[Status.MISSING]:
        sys.exit(1)


@verb(app, "smoke", CLUSTER, notes=_SMOKE_NOTES)
def smoke(
    api: ApiOptions,
    store: StoreOptions,
    resources: ResourceOptions,
    run: RunOptions,
    only: Annotated[
        str,
        typer.Option(
            "--only", metavar="NAME,NAME", help="Make only these checks, and those they need."
        ),
    ] = "",
    skip: Annotated[
        str, typer.Option("--skip", metavar="NAME,NAME", help="Leave these checks out.")
    ] = "",
    delete_data: Annotated[
        bool,
        typer.Option("--delete-data", help="Remove the demo's data from the store at the end."),
    ] = False,
    timeout: Annotated[
        float,
        typer.Option("--timeout", metavar="SECONDS", help="How long one run may take."),
    ] = 3600,
    poll: Poll = 2,
) -> None:
    """Try an installation: runs, a schedule, a lost pod, a killed process, a wrong address."""
    from pipelines.smoke import run_smoke, selected_checks
    from pipelines.smoke.waiting import Waiting

    names = selected_checks(only, skip)
    backend = _backend(api, store, resources, run)

    waiting = Waiting(backend, timeout, poll)
    sys.exit(run_smoke(backend, names, waiting, delete_data=delete_data))


def _backend(
    api: ApiOptions, store: StoreOptions, resources: ResourceOptions, run: RunOptions
) -> "RealBackend":
    """Upload the pipeline and return the cluster as the checks use it.

    Ends the process if a run would fail for a reason that can be seen from here.
    """
    from pipelines.package import package_named
    from pipelines.parameters import Variant
    from pipelines.preflight import check_target
    from pipelines.smoke.backend import RealBackend
    from pipelines.upload_data.location import store_of_runs

    profile = resources.load()
    variant = Variant(pipeline=key_of(api.pipeline))  # one training task, which the checks name
    file, version = package_named(api.pipeline, profile, variant)
    cluster = RealBackend.connect(api)
    mode = cluster.mode
    check_target(store, {}, variant, profile, mode, service_account=run.service_account).report()

    runs = store_of_runs(store, mode)
    with contextlib.redirect_stdout(sys.stderr):  # kfp prints the version's address
        uploaded = cluster.upload(file, api.pipeline, version)
    backend = RealBackend(
        cluster,
        uploaded,
        runs,
        store=store,
        pipeline=api.pipeline,
        experiment=run.experiment,
        service_account=run.service_account,
        pipeline_root=root_of_runs(store, cluster),
    )

    print(
        f"{mode.host}, namespace {mode.namespace}, {runs.root.uri} at {runs.store.endpoint},"
        f" version {version}"
    )

    return backend


def _shown(finding: "Finding") -> str:
    line = f"{finding.status:{_STATUS_WIDTH}}{finding.check:{_CHECK_WIDTH}}{finding.found}"
    if not finding.advice:
        return line
    return f"{line}\n{'':{_STATUS_WIDTH + _CHECK_WIDTH}}-> {finding.advice}"

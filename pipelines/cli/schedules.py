"""Verbs for recurring runs: `schedule create`, `list`, `enable`, `disable` and `delete`."""

from typing import TYPE_CHECKING, Annotated

import typer

from components.shared.contracts.errors import ConfigError
from pipelines.cli.declare import RUNS, verb
from pipelines.cli.help import VerbGroup
from pipelines.cli.options import (
    DryRun,
    GraphOptions,
    ParameterOptions,
    ResourceOptions,
    RunOptions,
)
from pipelines.cli.packages import show
from pipelines.cli.submission import Submission, root_of_runs
from pipelines.kubeflow.options import ApiOptions, StoreOptions

if TYPE_CHECKING:
    from pipelines.kubeflow.cluster import Cluster

_MIN_SECONDS = 60
_CRON_FIELDS = 6

schedule = typer.Typer(
    cls=VerbGroup,
    help="Create, list, enable, disable or delete recurring runs.",
    subcommand_metavar="ACTION [ARGS]...",
)
app = typer.Typer()
app.add_typer(schedule, name="schedule", rich_help_panel=RUNS)

_CREATE_NOTES = """
examples:
  python -m pipelines schedule create nightly --cron '0 0 3 * * *' --params run.yaml
  python -m pipelines schedule create hourly --every 3600 --params run.yaml --disabled
"""
_LIST_NOTES = """
example:
  python -m pipelines schedule list
"""
_CHANGE_NOTES = """
example:
  python -m pipelines schedule {change} nightly
"""

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the recurring run.")]


@verb(schedule, "create", notes=_CREATE_NOTES)
def create(
    name: Name,
    parameters: ParameterOptions,
    api: ApiOptions,
    store: StoreOptions,
    graph: GraphOptions,
    resources: ResourceOptions,
    run: RunOptions,
    cron: Annotated[
        str | None,
        typer.Option(
            "--cron",
            metavar="FIELDS",
            help="Six fields, seconds first: '0 0 3 * * *' is every day at three.",
        ),
    ] = None,
    every: Annotated[
        int | None,
        typer.Option("--every", metavar="SECONDS", help="Interval between starts."),
    ] = None,
    disabled: Annotated[
        bool, typer.Option("--disabled", help="Create it without starting it.")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Create a recurring run, or replace the one of this name.

    One run is active at a time, and none are caught up. One of --cron and --every is required.
    """
    _check_trigger(cron, every)
    submission = Submission(
        api=api,
        store=store,
        parameters=parameters,
        graph=graph,
        resources=resources,
        run=run,
    )

    values = submission.values()
    file, version = submission.package()

    if dry_run:
        when = {"cron": cron, "every_seconds": every, "enabled": not disabled}
        show(submission.request(name, version, values) | when)
        return

    from pipelines.kubeflow.cluster import Trigger, connect

    cluster = connect(api)
    submission.check_target(cluster, values)
    replaced = cluster.schedule(
        cluster.upload(file, api.pipeline, version),
        run.experiment,
        name,
        Trigger(cron, every),
        values,
        run.service_account,
        enabled=not disabled,
        pipeline_root=root_of_runs(store, cluster),
    )

    state = " (disabled)" if disabled else ""
    print(f"schedule {name} {'replaced' if replaced else 'created'}{state}")


@verb(schedule, "list", notes=_LIST_NOTES)
def list_(api: ApiOptions) -> None:
    """List the recurring runs of the pipeline."""
    from pipelines.kubeflow.cluster import connect

    for item in connect(api).schedules(api.pipeline):
        trigger = item.trigger
        when = (
            trigger.cron_schedule.cron
            if trigger.cron_schedule
            else f"{trigger.periodic_schedule.interval_second} s"
        )
        print(f"{item.display_name:24} {item.status or item.mode:10} {when}")


@verb(schedule, "enable", notes=_CHANGE_NOTES.format(change="enable"))
def enable(name: Name, api: ApiOptions) -> None:
    """Enable a recurring run by its name."""
    from pipelines.kubeflow.cluster import connect

    _change(connect(api), api.pipeline, name, "enable")


@verb(schedule, "disable", notes=_CHANGE_NOTES.format(change="disable"))
def disable(name: Name, api: ApiOptions) -> None:
    """Disable a recurring run by its name."""
    from pipelines.kubeflow.cluster import connect

    _change(connect(api), api.pipeline, name, "disable")


@verb(schedule, "delete", notes=_CHANGE_NOTES.format(change="delete"))
def delete(
    name: Name,
    api: ApiOptions,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Delete it even if a run of it is active: the run's pods end, and KFP shows the"
            " run as running for ever.",
        ),
    ] = False,
) -> None:
    """Delete a recurring run by its name; refused while a run of it is active."""
    from pipelines.kubeflow.cluster import connect

    cluster = connect(api)
    active = cluster.active_runs_of_schedule(api.pipeline, name)
    if active and not force:
        ids = " and ".join(run.run_id for run in active)
        raise ConfigError(
            f"schedule {name!r} has an active run, {ids}: with the schedule Kubernetes"
            " removes the run's Workflow and pods, and KFP shows the run as RUNNING for ever;"
            f" cancel it first: python -m pipelines cancel {active[0].run_id}, wait for its end, or"
            " add --force"
        )

    _change(cluster, api.pipeline, name, "delete")

    for run in active:
        print(
            f"run {run.run_id} ends with it: its Workflow and pods are removed, and KFP shows it as"
            " RUNNING for ever"
        )


def _change(cluster: "Cluster", pipeline: str, name: str, change: str) -> None:
    cluster.change_schedule(pipeline, name, change)
    print(f"schedule {name} {change}d")


def _check_trigger(cron: str | None, every: int | None) -> None:
    """Raise an error unless exactly one of the two is given and can fire."""
    if (cron is None) == (every is None):
        raise typer.BadParameter("give one of --cron and --every")
    if cron is not None and len(cron.split()) != _CRON_FIELDS:
        raise ConfigError(
            f"--cron {cron!r} must have six fields, seconds first: '0 0 3 * * *' is at three"
        )
    if every is not None and every < _MIN_SECONDS:
        raise ConfigError(f"--every {every} must be at least {_MIN_SECONDS} seconds")

"""The verbs that need a container engine or change something in Kubeflow.

Heavy imports stand inside the functions: `--help` and wrong options answer at once.
"""

import argparse
import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.shared.contracts.errors import ConfigError
from pipelines.cli import options
from pipelines.names import PIPELINE

if TYPE_CHECKING:
    from pipelines.kubeflow.cluster import Cluster
    from pipelines.kubeflow.connection import Mode
    from pipelines.kubeflow.run_store import RunStore

_PIPELINE_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # part of the names of pods


def images(parsed: argparse.Namespace) -> None:
    """List the images; build and push them where asked."""
    from pipelines.images import Builder, build_images, missing_images, pipeline_images, push_images
    from pipelines.sources import registry_of

    images, builder = pipeline_images(registry_of()), Builder.from_environment()
    missing = missing_images(images, builder) if parsed.build else []
    for image in missing:
        print(f"building {image.reference}", flush=True)
        build_images([image], builder)
    if parsed.push:
        push_images(images, builder)
    for image in images:
        print(image.reference)
    if parsed.build:
        print(f"{len(missing)} built, {len(images) - len(missing)} were there")


def upload(parsed: argparse.Namespace) -> None:
    """Upload the pipeline as it is here."""
    from pipelines.kubeflow.cluster import connect

    file, version = package_of(parsed)
    if parsed.dry_run:
        _show({"pipeline": parsed.pipeline, "version": version, "package": str(file)})
        return
    uploaded = connect(parsed).upload(file, parsed.pipeline, version)
    print(
        f"version {version} uploaded"
        if uploaded.created
        else f"version {version} is there already, nothing to do"
    )


def submit(parsed: argparse.Namespace) -> None:
    """Start a run, and wait for it where asked."""
    from pipelines.kubeflow.cluster import connect

    cluster = connect(parsed) if parsed.demo else None
    demo = _demo_store(parsed, cluster.mode) if cluster else None
    values = _run_values(parsed, demo)
    file, version = package_of(parsed)
    name = parsed.name or f"{parsed.pipeline} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    if parsed.dry_run:
        _show(_request(parsed, name, version, values))
        return

    cluster = cluster or connect(parsed)
    if demo is not None:
        _check_target(parsed, {}, cluster)  # before 22 MB are sent
        _upload_demo(demo)
    _check_target(parsed, values, cluster)
    uploaded = cluster.upload(file, parsed.pipeline, version)
    run_id = cluster.submit(
        uploaded,
        parsed.experiment,
        name,
        values,
        parsed.service_account,
        pipeline_root=root_of_runs(parsed, cluster),
    )
    print(f"run {run_id} started", flush=True)
    if parsed.wait:
        from pipelines.cli.run_verbs import wait_for
        from pipelines.kubeflow.run_report import RunReader

        sys.exit(wait_for(RunReader(parsed, cluster), run_id, parsed.timeout, parsed.poll))


def schedule(parsed: argparse.Namespace) -> None:
    """Create or replace a recurring run."""
    from pipelines.kubeflow.cluster import Trigger, connect

    _check_trigger(parsed)
    values = _run_values(parsed)
    file, version = package_of(parsed)
    if parsed.dry_run:
        when = {"cron": parsed.cron, "every_seconds": parsed.every, "enabled": not parsed.disabled}
        _show(_request(parsed, parsed.name, version, values) | when)
        return

    cluster = connect(parsed)
    _check_target(parsed, values, cluster)
    uploaded = cluster.upload(file, parsed.pipeline, version)
    trigger = Trigger(parsed.cron, parsed.every)
    replaced = cluster.schedule(
        uploaded,
        parsed.experiment,
        parsed.name,
        trigger,
        values,
        parsed.service_account,
        enabled=not parsed.disabled,
        pipeline_root=root_of_runs(parsed, cluster),
    )
    print(
        f"schedule {parsed.name}"
        f" {'replaced' if replaced else 'created'}{' (disabled)' if parsed.disabled else ''}"
    )


def schedules(parsed: argparse.Namespace) -> None:
    """List the recurring runs of the pipeline."""
    from pipelines.kubeflow.cluster import connect

    for item in connect(parsed).schedules(parsed.pipeline):
        trigger = item.trigger
        when = (
            trigger.cron_schedule.cron
            if trigger.cron_schedule
            else f"{trigger.periodic_schedule.interval_second} s"
        )
        print(f"{item.display_name:24} {item.status or item.mode:10} {when}")


def change_schedule(parsed: argparse.Namespace) -> None:
    """Enable, disable or delete one; deleting is refused while a run of it is active."""
    from pipelines.kubeflow.cluster import connect

    cluster = connect(parsed)
    active = (
        cluster.active_runs_of_schedule(parsed.pipeline, parsed.name)
        if parsed.change == "delete"
        else []
    )
    if active and not parsed.force:
        ids = " and ".join(run.run_id for run in active)
        raise ConfigError(
            f"schedule {parsed.name!r} has an active run, {ids}: with the schedule Kubernetes"
            " removes the run's Workflow and pods, and KFP shows the run as RUNNING for ever;"
            f" cancel it first: python -m pipelines cancel {active[0].run_id}, wait for its end, or"
            " add --force"
        )
    cluster.change_schedule(parsed.pipeline, parsed.name, parsed.change)
    print(f"schedule {parsed.name} {parsed.change}d")
    for run in active:
        print(
            f"run {run.run_id} ends with it: its Workflow and pods are removed, and KFP shows it as"
            " RUNNING for ever"
        )


def _check_trigger(parsed: argparse.Namespace) -> None:
    if parsed.cron is not None and len(parsed.cron.split()) != 6:
        raise ConfigError(
            f"--cron {parsed.cron!r} must have six fields, seconds first: '0 0 3 * * *' is at three"
        )
    if parsed.every is not None and parsed.every < 60:
        raise ConfigError(f"--every {parsed.every} must be at least 60 seconds")


def package_of(parsed: argparse.Namespace) -> tuple[Path, str]:
    """The compiled pipeline under the name of `--pipeline`, and its version."""
    from pipelines.package import package

    if not _PIPELINE_NAME.fullmatch(parsed.pipeline):
        raise ConfigError(
            f"--pipeline {parsed.pipeline!r} must be lower case letters, digits and hyphens, at"
            " most 63"
        )
    file, version = package(options.profile_of(parsed), options.variant_of(parsed))
    if parsed.pipeline != PIPELINE:
        _rename(file, parsed.pipeline)
    return file, version


def _rename(file: Path, name: str) -> None:
    """Give a compiled pipeline another name, which is part of KFP's cache keys and of the pipeline
    root.
    """
    import yaml

    documents = list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
    documents[0]["pipelineInfo"]["name"] = name
    file.write_text(yaml.safe_dump_all(documents), encoding="utf-8")


def _run_values(parsed: argparse.Namespace, demo: "RunStore | None" = None) -> dict[str, Any]:
    """The run's parameters; ends the process where pods could not read the places that they
    name.
    """
    from pipelines.parameters import read_parameters, validated
    from pipelines.preflight import check_places

    variant = options.variant_of(parsed)
    values = read_parameters(parsed.params, parsed.param, variant)
    if demo is not None:
        from pipelines.upload_data.demo import demo_values

        values = validated(demo_values(demo.bucket) | values, variant)
    for key in ("data", "backbone"):
        if not values.get(key):
            raise ConfigError(
                f"{key} is not set; add --param {key}=..., or set it in the file of --params"
            )
    check_places(values, variant).report()
    return values


def _demo_store(parsed: argparse.Namespace, mode: "Mode") -> "RunStore":
    """The store of the pipeline root, whose bucket takes the demo's data and backbone."""
    from pipelines.upload_data.location import store_of_runs

    return store_of_runs(parsed, mode)


def _upload_demo(runs: "RunStore") -> None:
    from pipelines.upload_data.demo import PREFIX, upload_demo
    from pipelines.upload_data.verb import megabytes

    done = upload_demo(runs.store, runs.bucket)
    print(
        f"demo: {done.n_files} files, {megabytes(done.n_bytes)}, at s3://{runs.bucket}/{PREFIX}; "
        f"{megabytes(done.sent_bytes)} of them sent",
        flush=True,
    )


def _check_target(parsed: argparse.Namespace, values: dict[str, Any], cluster: "Cluster") -> None:
    """End the process where a run would fail for what can be looked at from here."""
    from pipelines.preflight import check_target

    check_target(
        parsed, values, options.variant_of(parsed), options.profile_of(parsed), cluster.mode
    ).report()


def root_of_runs(parsed: argparse.Namespace, cluster: "Cluster") -> str:
    """The root that the run's artifacts go below; "" for KFP's default."""
    from pipelines.kubeflow.run_pods import reader_or_none
    from pipelines.kubeflow.run_store import root_for_runs

    return root_for_runs(parsed, reader_or_none(cluster.mode.namespace))


def _request(
    parsed: argparse.Namespace, name: str, version: str, values: dict[str, Any]
) -> dict[str, Any]:
    return {
        "pipeline": parsed.pipeline,
        "version": version,
        "experiment": parsed.experiment,
        "name": name,
        "namespace": parsed.namespace,
        "service_account": parsed.service_account,
        "parameters": values,
    }


def _show(document: dict[str, Any]) -> None:
    print(json.dumps(document, indent=1, sort_keys=True))

"""What do the verbs do that need a container engine or a cluster?

Heavy imports stand inside the functions: `--help` and wrong options answer at once.
"""

import argparse
import json
import sys
import time
from datetime import UTC, datetime
from typing import Any

from components.shared.errors import ConfigError

PIPELINE = "streetvision-stage1"
_EXIT_CODES = {"SUCCEEDED": 0, "SKIPPED": 0, "FAILED": 1, "CANCELED": 2}
_STILL_RUNNING = 124  # as `timeout` has it


def images(parsed: argparse.Namespace) -> None:
    """List the images; build and push them where asked."""
    from pipelines.images import Builder, build_images, missing_images, pipeline_images, push_images

    images, builder = pipeline_images(), Builder.from_environment()
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


def _cluster(parsed: argparse.Namespace) -> Any:
    from pipelines.cluster import Cluster
    from pipelines.connection import Connection

    return Cluster(Connection.resolve(parsed.host, parsed.namespace, parsed.ca_file))


def upload(parsed: argparse.Namespace) -> None:
    """Upload the pipeline as it is here."""
    from pipelines.package import package

    file, version = package(parsed.profile, parsed.queue)
    if parsed.dry_run:
        _show({"pipeline": PIPELINE, "version": version, "package": str(file)})
        return
    uploaded = _cluster(parsed).upload(file, PIPELINE, version)
    print(f"version {version} uploaded" if uploaded.created else f"version {version} is there already, nothing to do")


def submit(parsed: argparse.Namespace) -> None:
    """Start a run, and wait for it where asked."""
    from pipelines.package import package

    values = _run_values(parsed)
    file, version = package(parsed.profile, parsed.queue)
    name = parsed.name or f"{PIPELINE} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    if parsed.dry_run:
        _show(_request(parsed, name, version, values))
        return
    cluster = _cluster(parsed)
    uploaded = cluster.upload(file, PIPELINE, version)
    run_id = cluster.submit(uploaded, parsed.experiment, name, values, parsed.service_account)
    print(f"run {run_id} started")
    if parsed.wait:
        sys.exit(_wait(cluster, run_id, parsed.timeout, parsed.poll))


def _wait(cluster: Any, run_id: str, timeout: float, poll: float) -> int:
    """Print every change of a step's state until the run has ended; returns the exit code."""
    seen: dict[str, str] = {}
    ends = time.monotonic() + timeout
    while True:
        _, state, steps = cluster.run(run_id)
        for step in steps:
            if seen.get(step.name) != step.state:
                seen[step.name] = step.state
                print(f"{datetime.now(UTC):%H:%M:%S}  {step.name:20} {step.state}  {step.error}".rstrip(), flush=True)
        if state in _EXIT_CODES:
            print(f"run {run_id} {state}")
            return _EXIT_CODES[state]
        if time.monotonic() > ends:
            print(f"run {run_id} still {state} after {timeout:g} s; see: python -m pipelines status {run_id}")
            return _STILL_RUNNING
        time.sleep(poll)


def schedule(parsed: argparse.Namespace) -> None:
    """Create or replace a recurring run."""
    from pipelines.cluster import Trigger
    from pipelines.package import package

    _check_trigger(parsed)
    values = _run_values(parsed)
    file, version = package(parsed.profile, parsed.queue)
    if parsed.dry_run:
        when = {"cron": parsed.cron, "every_seconds": parsed.every, "enabled": not parsed.disabled}
        _show(_request(parsed, parsed.name, version, values) | when)
        return
    cluster = _cluster(parsed)
    uploaded = cluster.upload(file, PIPELINE, version)
    trigger = Trigger(parsed.cron, parsed.every)
    replaced = cluster.schedule(
        uploaded, parsed.experiment, parsed.name, trigger, values, parsed.service_account, enabled=not parsed.disabled
    )
    print(f"schedule {parsed.name} {'replaced' if replaced else 'created'}{' (disabled)' if parsed.disabled else ''}")


def _check_trigger(parsed: argparse.Namespace) -> None:
    if parsed.cron is not None and len(parsed.cron.split()) != 6:
        raise ConfigError(f"--cron {parsed.cron!r} must have six fields, seconds first: '0 0 3 * * *' is at three")
    if parsed.every is not None and parsed.every < 60:
        raise ConfigError(f"--every {parsed.every} must be at least 60 seconds")


def schedules(parsed: argparse.Namespace) -> None:
    """List the recurring runs."""
    for item in _cluster(parsed).schedules():
        trigger = item.trigger
        when = trigger.cron_schedule.cron if trigger.cron_schedule else f"{trigger.periodic_schedule.interval_second} s"
        print(f"{item.display_name:24} {item.status or item.mode:10} {when}")


def change_schedule(parsed: argparse.Namespace) -> None:
    """Enable, disable or delete one."""
    _cluster(parsed).change_schedule(parsed.name, parsed.change)
    print(f"schedule {parsed.name} {parsed.change}d")


def status(parsed: argparse.Namespace) -> None:
    """Show a run and its steps."""
    cluster = _cluster(parsed)
    run_id = parsed.run or cluster.latest_run()
    name, state, steps = cluster.run(run_id)
    print(f"{name} ({run_id}): {state}")
    for step in steps:
        seconds = f"{(step.end - step.start).total_seconds():.0f} s" if step.start and step.end else ""
        print(f"  {step.name:20} {step.state:10} {seconds:>8}  {step.error}".rstrip())


def logs(parsed: argparse.Namespace) -> None:
    """Show what a run's steps wrote."""
    cluster = _cluster(parsed)
    run_id = parsed.run or cluster.latest_run()
    _, _, steps = cluster.run(run_id)
    names = [step.name for step in steps]
    if parsed.step and parsed.step not in names:
        raise ConfigError(f"run {run_id} has no step {parsed.step!r}; it has: {', '.join(names) or 'none yet'}")
    for step in steps:
        if step.pod and parsed.step in (None, step.name):
            print(f"== {step.name}\n{cluster.log(run_id, step)}")


def download(parsed: argparse.Namespace) -> None:
    """Copy a run's artifacts from the store."""
    from components.shared.store import Store
    from pipelines.download import download_run

    store = Store.from_environment()  # first: without it nothing need be asked
    run_id = parsed.run or _cluster(parsed).latest_run()
    for path, verified in download_run(store, parsed.root, PIPELINE, run_id, parsed.output / run_id):
        print(f"{path}  {'verified' if verified else 'not an artifact of ours, copied'}")


def doctor(parsed: argparse.Namespace) -> None:
    """Print a table of what a run needs; exit code 1 where something is missing."""
    from pipelines.doctor import examine, kubernetes_api
    from pipelines.resources import PROFILES

    profile = PROFILES[parsed.profile]
    missing = 0
    for line in examine(kubernetes_api(), parsed.namespace, parsed.kfp_namespace, profile, parsed.store_endpoint):
        print(f"{'ok     ' if line.passed else 'MISSING'}  {line.check:24}{line.found}")
        if not line.passed:
            missing += 1
            print(f"{'':9}{'':24}-> {line.fix}")
    if missing:
        sys.exit(1)


def _run_values(parsed: argparse.Namespace) -> dict[str, Any]:
    from pipelines.parameters import read_parameters
    from pipelines.resources import PROFILES

    values = read_parameters(parsed.params, parsed.param, PROFILES[parsed.profile])
    for key in ("data", "backbone"):
        if not values.get(key):
            raise ConfigError(f"{key} is not set; add --param {key}=..., or set it in the file of --params")
    return values


def _request(parsed: argparse.Namespace, name: str, version: str, values: dict[str, Any]) -> dict[str, Any]:
    return {
        "pipeline": PIPELINE,
        "version": version,
        "experiment": parsed.experiment,
        "name": name,
        "namespace": parsed.namespace,
        "service_account": parsed.service_account,
        "parameters": values,
    }


def _show(document: dict[str, Any]) -> None:
    print(json.dumps(document, indent=1, sort_keys=True))

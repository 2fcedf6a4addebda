"""Verbs of the command line that need a container engine or a cluster."""

import argparse

from components.shared.contracts.environment import Variable
from pipelines.cli import cluster_verbs as verbs
from pipelines.cli import options
from pipelines.cli import runs as run_cli
from pipelines.cli.api_options import SubParsers, add_store_options, add_waiting_options, api_parser
from pipelines.cli.doctor import add_doctor
from pipelines.names import PIPELINE
from pipelines.smoke.verb import add_smoke
from pipelines.upload_data.verb import add_upload_data


def add_verbs(parsers: SubParsers) -> None:
    """Add them to the command line's sub-parsers."""
    _add_images(parsers)
    _add_upload(parsers)
    add_upload_data(parsers)
    _add_submit(parsers)
    _add_schedule(parsers)
    run_cli.add_verbs(parsers)
    add_doctor(parsers)
    add_smoke(parsers)


def _add_images(parsers: SubParsers) -> None:
    parser = parsers.add_parser(
        "images",
        help="list, build or push the images that the compiled pipeline names",
        description=(
            "One line for each phase: its image, named by a digest of the sources that go into it."
        ),
        epilog=(
            f"environment: {Variable.REGISTRY} is the names' prefix (default: streetvision),"
            f" {Variable.DOCKER} the client,\n{Variable.BASE_IMAGE} another base than the pinned"
            f" one; {Variable.PIP_FIND_LINKS} (a folder of wheels) and\n{Variable.PIP_CERT} (a PEM"
            " bundle) reach pip inside the build and stay out of the images."
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--build", action="store_true", help="build those that the engine does not hold yet"
    )
    parser.add_argument("--push", action="store_true", help="push all of them")
    parser.set_defaults(verb=verbs.images)


def _add_upload(parsers: SubParsers) -> None:
    parser = api_parser(
        parsers,
        "upload",
        "compile and upload a version of the pipeline; does nothing for the same content",
        verbs.upload,
    )
    _add_compile_options(parser)
    _add_dry_run(parser)


def _add_submit(parsers: SubParsers) -> None:
    parser = api_parser(
        parsers,
        "submit",
        "start a run of the pipeline as it is here, uploading it where it is new",
        verbs.submit,
        "exit code with --wait: 0 succeeded, 1 failed, 2 cancelled, 124 still running after"
        " --timeout",
    )
    _add_run_options(parser)
    parser.add_argument(
        "--demo",
        action="store_true",
        help=(
            "generated street scenes and a small random backbone, copied to the bucket of the"
            " pipeline root"
        ),
    )
    parser.add_argument("--name", help=f"name of the run (default: {PIPELINE} and the time)")
    parser.add_argument(
        "--wait", action="store_true", help="show the steps as they change, end with the run"
    )
    add_waiting_options(parser)


def _add_schedule(parsers: SubParsers) -> None:
    parser = parsers.add_parser(
        "schedule", help="create, list, enable, disable or delete recurring runs"
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    create = api_parser(
        actions,
        "create",
        "create a recurring run, or replace the one of this name; one run at a time, none are"
        " caught up",
        verbs.schedule,
        "example: python -m pipelines schedule create nightly --cron '0 0 3 * * *' --params"
        " run.yaml",
    )
    create.add_argument("name")
    when = create.add_mutually_exclusive_group(required=True)
    when.add_argument(
        "--cron", help="six fields, seconds first: '0 0 3 * * *' is every day at three"
    )
    when.add_argument("--every", type=int, metavar="SECONDS", help="interval between starts")
    create.add_argument("--disabled", action="store_true", help="create it without starting it")
    _add_run_options(create)

    api_parser(actions, "list", "list the recurring runs", verbs.schedules)
    for change in ("enable", "disable", "delete"):
        action = api_parser(
            actions, change, f"{change} a recurring run by its name", verbs.change_schedule
        )
        action.add_argument("name")
        action.set_defaults(change=change, force=False)
        if change == "delete":
            action.add_argument(
                "--force",
                action="store_true",
                help=(
                    "also while a run of it is active: the run's pods end, and KFP shows it as"
                    " running for ever"
                ),
            )


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    options.add_parameter_options(parser)
    _add_compile_options(parser)
    parser.add_argument("--experiment", default="streetvision", help="default: streetvision")
    parser.add_argument(
        "--service-account",
        default="streetvision-runner",
        metavar="NAME",
        help="Kubernetes service account that the pods of all steps run as (default: %(default)s)",
    )
    add_store_options(parser)
    _add_dry_run(parser)


def _add_compile_options(parser: argparse.ArgumentParser) -> None:
    options.add_profile_options(parser)
    options.add_variant_options(parser)


def _add_dry_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would be sent, send nothing"
    )

"""Which verbs of the command line need a container engine or a cluster?"""

import argparse
from pathlib import Path
from typing import Any

from pipelines import cluster_verbs as verbs

SubParsers = Any  # argparse's own type of sub-parsers is private
PROFILE_NAMES = ("a6000x2", "a6000x1", "cpu")
_API = (
    "The API's address is --host or KF_PIPELINES_ENDPOINT, in a pod of the cluster it is found. Who asks: nobody, the\n"
    "token in STREETVISION_KFP_TOKEN, the Dex session in STREETVISION_KFP_COOKIE (authservice_session=...), or a\n"
    "pod's service account."
)


def add_verbs(parsers: SubParsers) -> None:
    """Add them to the command line's sub-parsers."""
    _add_images(parsers)
    _add_upload(parsers)
    _add_submit(parsers)
    _add_schedule(parsers)
    _add_runs(parsers)
    _add_doctor(parsers)


def add_profile_options(parser: argparse.ArgumentParser) -> None:
    """What the compiled pipeline asks of the cluster."""
    parser.add_argument("--profile", choices=PROFILE_NAMES, default="a6000x2", help="GPUs and nodes of training")
    parser.add_argument("--queue", default="", metavar="NAME", help="Kueue's LocalQueue for training (default: none)")


def add_parameter_options(parser: argparse.ArgumentParser) -> None:
    """Values of the pipeline's parameters."""
    parser.add_argument("--params", type=Path, metavar="FILE", help="YAML or JSON mapping of parameters")
    parser.add_argument(
        "--param", action="append", default=[], metavar="KEY=VALUE", help="one parameter; wins over --params"
    )


def _add_images(parsers: SubParsers) -> None:
    parser = parsers.add_parser(
        "images",
        help="list, build or push the images that the compiled pipeline names",
        description="One line for each phase: its image, named by a digest of the sources that go into it.",
        epilog=(
            "environment: STREETVISION_REGISTRY is the names' prefix (default: streetvision), DOCKER the client,\n"
            "STREETVISION_BASE_IMAGE another base than the pinned one; PIP_FIND_LINKS (a folder of wheels) and\n"
            "PIP_CERT (a PEM bundle) reach pip inside the build and stay out of the images."
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--build", action="store_true", help="build those that the engine does not hold yet")
    parser.add_argument("--push", action="store_true", help="push all of them")
    parser.set_defaults(verb=verbs.images)


def _add_upload(parsers: SubParsers) -> None:
    parser = _api_parser(
        parsers, "upload", "compile and upload a version of the pipeline; does nothing for the same content"
    )
    add_profile_options(parser)
    _add_dry_run(parser)
    parser.set_defaults(verb=verbs.upload)


def _add_submit(parsers: SubParsers) -> None:
    parser = _api_parser(
        parsers,
        "submit",
        "start a run of the pipeline as it is here, uploading it where it is new",
        "exit code with --wait: 0 succeeded, 1 failed, 2 cancelled, 124 still running after --timeout",
    )
    _add_run_options(parser)
    parser.add_argument("--name", help=f"name of the run (default: {verbs.PIPELINE} and the time)")
    parser.add_argument("--wait", action="store_true", help="show the steps as they change, end with the run")
    parser.add_argument("--timeout", type=float, default=24 * 3600, metavar="SECONDS", help="how long --wait waits")
    parser.add_argument(
        "--poll", type=float, default=10, metavar="SECONDS", help="time between two looks (default: 10)"
    )
    parser.set_defaults(verb=verbs.submit)


def _add_schedule(parsers: SubParsers) -> None:
    parser = parsers.add_parser("schedule", help="create, list, enable, disable or delete recurring runs")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    create = _api_parser(
        actions,
        "create",
        "create a recurring run, or replace the one of this name; one run at a time, none are caught up",
        "example: python -m pipelines schedule create nightly --cron '0 0 3 * * *' --params run.yaml",
    )
    create.add_argument("name")
    when = create.add_mutually_exclusive_group(required=True)
    when.add_argument("--cron", help="six fields, seconds first: '0 0 3 * * *' is every day at three")
    when.add_argument("--every", type=int, metavar="SECONDS", help="interval between starts")
    create.add_argument("--disabled", action="store_true", help="create it without starting it")
    _add_run_options(create)
    create.set_defaults(verb=verbs.schedule)
    _api_parser(actions, "list", "list the recurring runs").set_defaults(verb=verbs.schedules)
    for change in ("enable", "disable", "delete"):
        action = _api_parser(actions, change, f"{change} a recurring run by its name")
        action.add_argument("name")
        action.set_defaults(verb=verbs.change_schedule, change=change)


def _add_runs(parsers: SubParsers) -> None:
    status = _api_parser(parsers, "status", "show the state of a run and its steps")
    logs = _api_parser(parsers, "logs", "show what the steps of a run wrote")
    logs.add_argument("--step", help="only this one, for example train-baseline")
    download = _api_parser(
        parsers,
        "download",
        "copy a run's artifacts from the object store and verify them",
        "The store is that of STREETVISION_S3_ENDPOINT, _ACCESS_KEY and _SECRET_KEY. A step that came from the cache\n"
        "left its artifacts with the run that made them.",
    )
    download.add_argument("--root", default="s3://streetvision/runs", help="KFP's pipeline root (default: %(default)s)")
    download.add_argument("--output", type=Path, default=Path("downloads"), help="folder (default: downloads)")
    for parser, verb in ((status, verbs.status), (logs, verbs.logs), (download, verbs.download)):
        parser.add_argument("run", nargs="?", metavar="RUN_ID", help="default: the run that was started last")
        parser.set_defaults(verb=verb)


def _add_doctor(parsers: SubParsers) -> None:
    parser = parsers.add_parser(
        "doctor",
        help="look whether a cluster has what a run needs",
        description="Look at the cluster that kubectl would talk to; exit code 1 where something is missing.",
    )
    parser.add_argument("--namespace", default="streetvision", help="namespace of the runs (default: streetvision)")
    parser.add_argument("--kfp-namespace", default="kubeflow", help="namespace of KFP's API (default: kubeflow)")
    parser.add_argument(
        "--store-endpoint", default="", metavar="HOST:PORT", help="forwarded port of the object store, from outside"
    )
    add_profile_options(parser)
    parser.set_defaults(verb=verbs.doctor)


def _api_parser(parsers: SubParsers, name: str, purpose: str, epilog: str = "") -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = parsers.add_parser(
        name,
        help=purpose,
        description=purpose[0].upper() + purpose[1:] + ".",
        epilog="\n\n".join(text for text in (epilog, _API) if text),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--host", metavar="URL", help="Kubeflow Pipelines' API, for example http://localhost:8080/pipeline"
    )
    parser.add_argument("--namespace", default="streetvision", help="profile namespace (default: streetvision)")
    parser.add_argument("--ca-file", metavar="PEM", help="certificate authority of an https host")
    return parser


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    add_parameter_options(parser)
    add_profile_options(parser)
    parser.add_argument("--experiment", default="streetvision", help="default: streetvision")
    parser.add_argument("--service-account", default="streetvision-runner", help="of the steps' pods")
    _add_dry_run(parser)


def _add_dry_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="print what would be sent, send nothing")

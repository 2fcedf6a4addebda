"""The verb `smoke`: the checks of an installation, as a table."""

import argparse
import contextlib
import signal
import sys

from pipelines.cli import options
from pipelines.cli.api_options import SubParsers, add_store_options, api_parser

_CHECKS = "demo-data, run, second-run, schedule, pod-deleted, process-killed, wrong-data"
_ABOUT = (
    "Uses the cluster that KFP's API and kubectl's configuration lead to as users and accidents"
    " do, on generated\ndata; about 45 minutes on two CPUs. At the end, after Ctrl-C as well, runs"
    " are archived and schedules deleted;\nartifacts stay, since KFP's cache leads later runs to"
    f" them.\n\nchecks: {_CHECKS}\nexit code: 0 where none failed, 1 where one did, 130 after"
    " Ctrl-C"
)


def add_smoke(parsers: SubParsers) -> None:
    """Add the verb to the command line's sub-parsers."""
    parser = api_parser(
        parsers,
        "smoke",
        "try an installation: runs, a schedule, a lost pod, a killed process, a wrong address",
        smoke,
        _ABOUT,
    )
    parser.add_argument(
        "--only", default="", metavar="NAME,NAME", help="make only these, and what they need"
    )
    parser.add_argument("--skip", default="", metavar="NAME,NAME", help="leave these out")
    parser.add_argument(
        "--delete-data",
        action="store_true",
        help="remove the demo's data from the store at the end",
    )
    parser.add_argument("--experiment", default="streetvision", help="default: streetvision")
    parser.add_argument(
        "--service-account",
        default="streetvision-runner",
        metavar="NAME",
        help="of the pods (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=3600,
        metavar="SECONDS",
        help="how long one run may take (default: 3600)",
    )
    parser.add_argument(
        "--poll",
        type=float,
        default=2,
        metavar="SECONDS",
        help="time between two looks (default: 2)",
    )
    options.add_profile_options(parser)
    add_store_options(parser)
    # The graph without options: one training task, whose name the checks know.
    parser.set_defaults(pretrain="none", modes="")


def smoke(parsed: argparse.Namespace) -> None:
    """Make the checks; the exit code tells whether one failed."""
    from pipelines.cli.cluster_verbs import package_of, root_of_runs
    from pipelines.preflight import check_target
    from pipelines.smoke import run_smoke, selected_checks
    from pipelines.smoke.backend import RealBackend
    from pipelines.smoke.waiting import Waiting
    from pipelines.upload_data.location import store_of_runs

    names = selected_checks(parsed.only, parsed.skip)
    file, version = package_of(parsed)
    cluster = RealBackend.connect(parsed)
    mode = cluster.mode
    check_target(parsed, {}, options.variant_of(parsed), options.profile_of(parsed), mode).report()

    runs = store_of_runs(parsed, mode)
    with contextlib.redirect_stdout(sys.stderr):  # kfp prints the version's address
        uploaded = cluster.upload(file, parsed.pipeline, version)
    backend = RealBackend(parsed, cluster, uploaded, runs, root_of_runs(parsed, cluster))
    print(
        f"{mode.host}, namespace {mode.namespace}, {runs.root.uri} at {runs.store.endpoint},"
        f" version {version}"
    )

    # A job that is ended cleans up as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    waiting = Waiting(backend, parsed.timeout, parsed.poll)
    sys.exit(run_smoke(backend, names, waiting, delete_data=parsed.delete_data))

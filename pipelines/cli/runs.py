"""Verbs of the command line that look at runs."""

import argparse
from pathlib import Path

from components.shared.contracts.environment import Variable
from pipelines.cli import run_verbs as verbs
from pipelines.cli.api_options import (
    SubParsers,
    add_poll_option,
    add_store_options,
    add_waiting_options,
    api_parser,
)

_REASONS = (
    "Why a step failed is the last line of its log in the object store: that of KFP's pipeline"
    f" root, opened with\n{Variable.S3_ENDPOINT}, _ACCESS_KEY and _SECRET_KEY, else as the"
    " cluster's kfp-launcher says. Pods, which stay\nfor an hour, are read by Kubernetes. From"
    " outside the cluster forward the store's port: --store-endpoint."
)
_EXIT_CODES = "exit code: 0 succeeded, 1 failed, 2 cancelled, 124 still running after --timeout"


def add_verbs(parsers: SubParsers) -> None:
    """Add them to the command line's sub-parsers."""
    _add_status(parsers)
    _add_logs(parsers)
    _add_wait(parsers)
    _add_others(parsers)
    _add_download(parsers)


def _add_status(parsers: SubParsers) -> None:
    parser = api_parser(
        parsers,
        "status",
        "show the state of a run and its steps, and why one waits or failed",
        verbs.status,
        _REASONS,
    )
    _add_run(parser)
    parser.add_argument(
        "--watch", action="store_true", help="show it again and again until the run ends"
    )
    parser.add_argument(
        "--json", action="store_true", help="one JSON document; with --watch one each time"
    )
    add_poll_option(parser)
    add_store_options(parser)


def _add_logs(parsers: SubParsers) -> None:
    parser = api_parser(
        parsers,
        "logs",
        "show what the steps of a run wrote",
        verbs.logs,
        "A running step is read from its pod, by Kubernetes; one that has ended from the object"
        " store, as for status.",
    )
    _add_run(parser)
    parser.add_argument("--step", help="only this one, for example train-baseline")
    parser.add_argument(
        "--follow", action="store_true", help="show lines as they are written, until the run ends"
    )
    add_poll_option(parser)
    add_store_options(parser)


def _add_wait(parsers: SubParsers) -> None:
    parser = api_parser(
        parsers,
        "wait",
        "wait for the end of a run; show its steps as they change, and why it failed",
        verbs.wait,
        _EXIT_CODES,
    )
    _add_run(parser)
    add_waiting_options(parser)
    add_store_options(parser)


def _add_others(parsers: SubParsers) -> None:
    cancel = api_parser(parsers, "cancel", "cancel a run", verbs.cancel)
    cancel.add_argument("run", metavar="RUN_ID")

    _add_run(
        api_parser(
            parsers,
            "open",
            "print the address of a run in Kubeflow's interface",
            verbs.open_interface,
        )
    )

    listing = api_parser(parsers, "runs", "list the newest runs of the pipeline", verbs.runs)
    listing.add_argument(
        "--limit", type=int, default=20, metavar="N", help="at most this many (default: 20)"
    )


def _add_download(parsers: SubParsers) -> None:
    parser = api_parser(
        parsers,
        "download",
        "copy a run's artifacts from the object store and verify them",
        verbs.download,
        "The store is found as for status. A step that came from the cache left its artifacts with"
        " the run that made\nthem.",
    )
    _add_run(parser)
    add_store_options(parser)
    parser.add_argument(
        "--output", type=Path, default=Path("downloads"), help="folder (default: downloads)"
    )


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run",
        nargs="?",
        metavar="RUN_ID",
        help="default: the run of the pipeline that was started last",
    )

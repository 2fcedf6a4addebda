"""Options of every verb that asks Kubeflow's API."""

import argparse
from collections.abc import Callable
from typing import Any

from components.shared.contracts.environment import Variable
from pipelines.names import PIPELINE

SubParsers = Any  # argparse's own type of sub-parsers is private
_API = (
    f"The API's address is --host or {Variable.KFP_ENDPOINT}; in a pod of the cluster it is found."
    f" Authentication: none,\na bearer token ({Variable.KFP_TOKEN}), a Dex session cookie"
    f" ({Variable.KFP_COOKIE}:\nauthservice_session=...), or the pod's service account. The"
    " namespace is --namespace, else that of kubeconfig's\ncurrent context, else kubeflow where KFP"
    " has one user, and streetvision where it has several."
)


def api_parser(
    parsers: SubParsers,
    name: str,
    purpose: str,
    verb: Callable[[argparse.Namespace], None],
    epilog: str = "",
) -> argparse.ArgumentParser:
    """Add a verb that asks the API; returns its parser."""
    parser: argparse.ArgumentParser = parsers.add_parser(
        name,
        help=purpose,
        description=purpose[0].upper() + purpose[1:] + ".",
        epilog="\n\n".join(text for text in (epilog, _API) if text),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--host",
        metavar="URL",
        help="Kubeflow Pipelines' API, for example http://localhost:8080/pipeline",
    )
    parser.add_argument("--namespace", metavar="NAME", help="namespace of the runs")
    parser.add_argument("--ca-file", metavar="PEM", help="certificate authority of an https host")
    parser.add_argument(
        "--pipeline",
        default=PIPELINE,
        metavar="NAME",
        help="pipeline in Kubeflow (default: %(default)s)",
    )
    parser.set_defaults(verb=verb)
    return parser


def add_waiting_options(parser: argparse.ArgumentParser) -> None:
    """Add `--timeout` and `--poll`."""
    parser.add_argument(
        "--timeout",
        type=float,
        default=24 * 3600,
        metavar="SECONDS",
        help="how long to wait (default: a day)",
    )
    add_poll_option(parser)


def add_poll_option(parser: argparse.ArgumentParser) -> None:
    """Add `--poll`."""
    parser.add_argument(
        "--poll",
        type=float,
        default=10,
        metavar="SECONDS",
        help="time between two looks (default: 10)",
    )


def add_store_options(parser: argparse.ArgumentParser) -> None:
    """Add `--root` and `--store-endpoint`, which `pipelines.kubeflow.run_store.open_store`
    reads.
    """
    parser.add_argument(
        "--root",
        metavar="URI",
        help=(
            f"KFP's pipeline root, s3:// or minio:// (default: {Variable.PIPELINE_ROOT}, else that"
            " of the cluster)"
        ),
    )
    parser.add_argument(
        "--store-endpoint",
        metavar="HOST:PORT",
        help="forwarded port of the object store, where its own address is not reachable from here",
    )

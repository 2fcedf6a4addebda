"""The verb `doctor`: a table of what a run needs on a cluster."""

import argparse
import sys
from typing import TYPE_CHECKING

from pipelines.cli import options
from pipelines.cli.api_options import SubParsers, api_parser

if TYPE_CHECKING:
    from pipelines.doctor import Finding

_STATUS_WIDTH, _CHECK_WIDTH = 9, 26
_EPILOG = (
    "Kubernetes is asked as kubectl would. Nothing is changed, but for a small object that is"
    " written to the store\nand deleted, to see whether it honours conditional writes. unknown: it"
    " cannot be looked at from here.\n\nexit code: 0 where nothing is missing, 1 otherwise"
)


def add_doctor(parsers: SubParsers) -> None:
    """Add the verb to the command line's sub-parsers."""
    parser = api_parser(
        parsers, "doctor", "look whether a cluster has what a run needs", doctor, _EPILOG
    )
    parser.add_argument(
        "--kfp-namespace",
        metavar="NAME",
        help="namespace of KFP itself (default: that of its one user, or kubeflow)",
    )
    parser.add_argument(
        "--store-endpoint",
        default="",
        metavar="HOST:PORT",
        help="forwarded port of the object store, where its own address is not reachable from here",
    )
    options.add_profile_options(parser)
    options.add_variant_options(parser)


def doctor(parsed: argparse.Namespace) -> None:
    """Print the table; exit code 1 where something is missing."""
    from pipelines.doctor import Status, Where, run_checks

    where = Where(
        host=parsed.host,
        namespace=parsed.namespace,
        ca_file=parsed.ca_file,
        pipeline=parsed.pipeline,
        kfp_namespace=parsed.kfp_namespace,
        store_endpoint=parsed.store_endpoint,
    )
    counts, forbidden = dict.fromkeys(Status, 0), False
    for finding in run_checks(where, options.profile_of(parsed), _images(parsed)):
        counts[finding.status] += 1
        forbidden = forbidden or "may not look" in finding.found
        print(_shown(finding), flush=True)

    print(", ".join(f"{count} {status}" for status, count in counts.items() if count))
    if forbidden:
        print("where these credentials may not look, have an admin run this")
    if counts[Status.MISSING]:
        sys.exit(1)


def _shown(finding: "Finding") -> str:
    line = f"{finding.status:{_STATUS_WIDTH}}{finding.check:{_CHECK_WIDTH}}{finding.found}"
    if not finding.advice:
        return line
    return f"{line}\n{'':{_STATUS_WIDTH + _CHECK_WIDTH}}-> {finding.advice}"


def _images(parsed: argparse.Namespace) -> tuple[str, ...]:
    """References of the images of the graph that the options ask for."""
    from pipelines.images import pipeline_images
    from pipelines.sources import registry_of

    variant = options.variant_of(parsed)
    left_out = set()
    if variant.pretrain == "none":
        left_out.add("pretrain_explora")
    if not variant.modes:
        left_out.add("compare_adaptations")
    images = pipeline_images(registry_of())
    return tuple(image.reference for image in images if image.phase not in left_out)

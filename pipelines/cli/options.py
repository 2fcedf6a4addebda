"""Options that several verbs of the command line share: parameters of a run, the compiled graph,
resources.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.parameters import Variant
    from pipelines.resources import Profile


def add_parameter_options(parser: argparse.ArgumentParser) -> None:
    """Add `--params` and `--param`: values of the run's parameters."""
    parser.add_argument(
        "--params",
        type=Path,
        metavar="FILE",
        help="YAML or JSON mapping of options, may be grouped by phase",
    )
    parser.add_argument(
        "--param",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one option by its name, or phase.option; wins over --params",
    )


def add_variant_options(parser: argparse.ArgumentParser) -> None:
    """Add `--pretrain` and `--modes`: what of the graph is compiled in."""
    parser.add_argument(
        "--pretrain",
        default="none",
        metavar="none|unlabelled|labelled",
        help=(
            "extended pre-training of the backbone on TRAIN, without or with labels (default: none)"
        ),
    )
    parser.add_argument(
        "--modes",
        default="",
        metavar="MODE,MODE",
        help=(
            "adaptations to train side by side and compare, for example full,frozen,lora,dora"
            " (default: one training)"
        ),
    )


def add_profile_options(parser: argparse.ArgumentParser) -> None:
    """Add `--profile`, `--queue` and `--store-secret`: what the compiled pipeline asks of the
    cluster.
    """
    parser.add_argument(
        "--profile",
        default="a6000x2",
        metavar="NAME|FILE",
        help=(
            "resources of the steps: a6000x2, a6000x1, cpu, or a YAML file like"
            " pipelines/profiles/a6000x2.yaml"
        ),
    )
    parser.add_argument(
        "--queue",
        default="",
        metavar="NAME",
        help="Kueue's LocalQueue for training (default: none)",
    )
    parser.add_argument(
        "--store-secret",
        default="",
        metavar="NAME",
        help=(
            "Secret with the object store's accesskey and secretkey (default: the profile's, KFP's"
            " own store)"
        ),
    )


def variant_of(parsed: argparse.Namespace) -> "Variant":
    """Return the graph that the options ask for. Raises ConfigError."""
    from pipelines.parameters import parse_variant

    return parse_variant(parsed.pretrain, parsed.modes)


def profile_of(parsed: argparse.Namespace) -> "Profile":
    """Return the resources that the options ask for. Raises ConfigError."""
    from pipelines.resources import load_profile

    return load_profile(parsed.profile, queue=parsed.queue, store_secret=parsed.store_secret)

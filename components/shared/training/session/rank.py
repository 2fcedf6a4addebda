"""Entry point of a rank under torchrun: job file, computation, exit code."""

import argparse
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from components.shared.contracts.artifacts import trusting
from components.shared.contracts.config import Config
from components.shared.contracts.documents import read_object
from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import PERMANENT_EXIT_CODE
from components.shared.contracts.listing import say
from components.shared.contracts.options import ComputeConfig, LaunchConfig, ResumableConfig
from components.shared.contracts.redaction import redact_output
from components.shared.models.blocks import compilation_time
from components.shared.training.checkpoint.parts import Parts
from components.shared.training.checkpoint.writer import CheckpointWriter
from components.shared.training.launch.torchrun import report_error
from components.shared.training.loop.distributed import World, leave, process_group
from components.shared.training.session.compute import (
    prepare_computation,
    refused_by_determinism,
    resolved,
    shown_computation,
)

C = TypeVar("C", bound=Config)


def run_rank(work: Callable[..., None], config_class: type[C], description: str | None) -> None:
    """Run `work` as one rank of torchrun and end the process.

    It parses `--config job.json` and calls work(config, **paths, world), with `checkpoints` where
    the phase trains, with `parts` where it computes part by part. The configuration has the values
    that its options have on this device (`resolved`); random numbers are seeded where it has a
    seed. An error is left for the launcher with its class and message; its traceback is printed
    unless it is permanent.
    """
    parser = argparse.ArgumentParser(description=(description or "").split("\n", 1)[0])
    parser.add_argument("--config", type=Path, required=True, help="job.json written by the step")
    job = parser.parse_args().config
    redact_output()

    rank = int(os.environ.get(Variable.RANK, 0))
    try:
        document = read_object(job, dict[str, Any])
        paths = {name: Path(path) for name, path in document["paths"].items()}
        verified = {paths[name]: digest for name, digest in document["verified"].items()}
        with trusting(verified), process_group() as world:
            config = _prepared(config_class.from_mapping(document["config"]), world)
            more: dict[str, CheckpointWriter | Parts] = {}
            if isinstance(config, LaunchConfig):
                more["checkpoints"] = CheckpointWriter.of_job(document["checkpoints"], config)
            elif isinstance(config, ResumableConfig):
                more["parts"] = Parts.of_job(document["checkpoints"], config)
            work(config, **paths, world=world, **more)
            _say_compilation(world)
    except Exception as raised:
        error = refused_by_determinism(raised) or raised
        report_error(job.parent, rank, error)
        if getattr(error, "exit_code", 0) != PERMANENT_EXIT_CODE:
            traceback.print_exc()
        leave(getattr(error, "exit_code", 1))

    leave(0)


def _say_compilation(world: World) -> None:
    """Say what compilation took of the time, so that a short run can do without it."""
    count, seconds = compilation_time()
    if count and world.is_main:
        say(f"compiled {count} forms of a block, in {seconds:.0f} s of this process's time")


def _prepared(config: C, world: World) -> C:
    """Return the configuration as this device resolves it, with PyTorch set accordingly.

    Raises ConfigError for what the device cannot do.
    """
    torch.manual_seed(getattr(config, "seed", 0))
    if not isinstance(config, ComputeConfig):
        return config

    config = resolved(config, world.device)
    prepare_computation(config)
    if world.is_main:
        say(shown_computation(config, world.device))
    return config

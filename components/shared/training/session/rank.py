"""Entry point of a rank under torchrun: job file, computation, exit code."""

import argparse
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from components.shared.contracts.artifacts import trusting
from components.shared.contracts.config import Config
from components.shared.contracts.documents import read_object
from components.shared.contracts.errors import PERMANENT_EXIT_CODE, ConfigError
from components.shared.contracts.options import LaunchConfig
from components.shared.contracts.redaction import redact_output
from components.shared.training.checkpoint.writer import CheckpointWriter
from components.shared.training.launch.torchrun import report_error
from components.shared.training.loop.distributed import World, leave, process_group

C = TypeVar("C", bound=Config)


def run_rank(work: Callable[..., None], config_class: type[C], description: str | None) -> None:
    """Run `work` as one rank of torchrun and end the process.

    It parses `--config job.json` and calls work(config, **paths, world), with `checkpoints` where
    the phase trains. Computation is deterministic, and seeded where the configuration has a seed.
    An error is left for the launcher with its class and message; its traceback is printed unless it
    is permanent.
    """
    parser = argparse.ArgumentParser(description=(description or "").split("\n", 1)[0])
    parser.add_argument("--config", type=Path, required=True, help="job.json written by the step")
    job = parser.parse_args().config
    redact_output()

    rank = 0
    try:
        document = read_object(job, dict[str, Any])
        paths = {name: Path(path) for name, path in document["paths"].items()}
        verified = {paths[name]: digest for name, digest in document["verified"].items()}
        with trusting(verified), process_group() as world:
            rank = world.rank
            config = config_class.from_mapping(document["config"])
            _prepare(config, world)
            more = {}
            if isinstance(config, LaunchConfig):
                more["checkpoints"] = CheckpointWriter.of_job(document["checkpoints"], config)
            work(config, **paths, world=world, **more)
    except Exception as error:
        report_error(job.parent, rank, error)
        if getattr(error, "exit_code", 0) != PERMANENT_EXIT_CODE:
            traceback.print_exc()
        leave(getattr(error, "exit_code", 1))

    leave(0)


def _prepare(config: Config, world: World) -> None:
    """Raises ConfigError for bf16 on a GPU without it."""
    on_gpu = world.device.type == "cuda"
    if getattr(config, "precision", "") == "bf16" and on_gpu and not torch.cuda.is_bf16_supported():
        raise ConfigError("precision='bf16' is not supported by this GPU; use fp32")
    torch.use_deterministic_algorithms(True, warn_only=on_gpu)
    torch.manual_seed(getattr(config, "seed", 0))

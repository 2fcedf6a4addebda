"""A least-squares task for the training loop, also runnable as a torchrun module: `-m
tests.components.shared.training.toy`.
"""

import argparse
import json
import os
import random
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch import nn

from components.shared.contracts.config import option
from components.shared.contracts.options import BackboneLoopConfig, LaunchConfig
from components.shared.training.checkpoint.writer import CheckpointWriter
from components.shared.training.launch.torchrun import report_error
from components.shared.training.loop.distributed import World, leave, process_group
from components.shared.training.loop.halving import PartSize, in_parts
from components.shared.training.loop.state import TrainingState
from components.shared.training.session.fit import FitResult, fit

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ToyLoop(BackboneLoopConfig):
    """The loop with every option that a phase may add."""

    patience: int | None = option(None, "Epochs without improvement.", unset="none")
    reference_rate: float | None = option(None, "Rate of PROFIT's step.", unset="none")


class Constrained(nn.Module):
    """A module with a buffer, as DINOv3 and the MAE's decoder have.

    It runs out of memory with more than `memory` samples, within its forward or backward pass.
    """

    def __init__(self, inner: nn.Module, memory: int, failing_pass: str) -> None:
        super().__init__()
        self.inner, self.memory, self.failing_pass = inner, memory, failing_pass
        self.register_buffer("scale", torch.ones(3))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Apply the inner module."""
        out: torch.Tensor = self.inner(inputs)
        if not self.training or len(inputs) <= self.memory:
            return out
        if self.failing_pass == "forward":
            _run_out_of_memory()
        if self.failing_pass == "backward":
            out.register_hook(_run_out_of_memory)
        return out


def _run_out_of_memory(*_: object) -> None:
    raise torch.OutOfMemoryError("planted")


class Toy:
    """Linear regression of 40 samples; `fault` makes the last rank fail at step `at`.

    `memory` is the number of samples that the last rank has memory for. `failing_pass` names for
    each rank the pass that runs out of it, of a module with a buffer.

    `noise` draws from the global generators, which a resumed training must find as they were;
    `width` makes it a network of several communication buckets; every call of `loss` takes
    `seconds`.
    """

    n_samples = 40
    monitor: str | None = "score"

    def __init__(
        self,
        world: World,
        fault: str = "",
        memory: int = 10**9,
        at: int = 3,
        noise: bool = False,
        width: int = 0,
        seconds: float = 0.0,
        failing_pass: Sequence[str] = (),
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(self.n_samples, 5, generator=generator)
        self.targets = self.inputs @ torch.arange(5.0) + 1
        torch.manual_seed(1)
        self.module: nn.Module = nn.Linear(5, 1)
        if width:
            hidden = (
                nn.Linear(5, width),
                nn.ReLU(),
                nn.Linear(width, width),
                nn.ReLU(),
                nn.Linear(width, width),
            )
            self.module = nn.Sequential(*hidden, nn.ReLU(), nn.Linear(width, 1))
        if failing_pass:
            self.module = Constrained(self.module, memory, failing_pass[world.rank])
            memory = 10**9
        self.world, self.fault, self.memory, self.at, self.noise = world, fault, memory, at, noise
        self.batch_sizes: list[int] = []
        self.seconds = seconds

    def loss(
        self, model: nn.Module, positions: Positions, batch_slots: Positions, step: int
    ) -> torch.Tensor:
        """Sum of squared errors."""
        self.batch_sizes.append(len(positions))
        time.sleep(self.seconds)
        last_rank = self.world.rank == self.world.size - 1
        if last_rank and len(positions) > self.memory:
            _run_out_of_memory()
        faulty = last_rank and step == self.at
        if faulty and self.fault == "raise":
            raise ValueError("planted failure")
        if faulty and self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if faulty and self.fault == "hang":
            os.kill(os.getpid(), signal.SIGSTOP)
        loss = (model(self.inputs[positions])[:, 0] - self.targets[positions]).square().sum()
        if self.noise:
            loss = loss * (
                1
                + 0.1 * (random.gauss(0, 1) + np.random.standard_normal() + float(torch.randn(())))
            )
        return loss * float("nan") if faulty and self.fault == "nan" else loss

    def evaluate(self) -> dict[str, float]:
        """Negative mean squared error over all samples."""
        with torch.no_grad():
            error = (self.module(self.inputs)[:, 0] - self.targets).square().mean()
        return {"score": -float(error)}


class Prepared(Toy):
    """The toy, whose steps begin with outputs of the whole batch, in parts, and with their sum.

    The last rank has memory for `part_memory` samples of a part.
    """

    def __init__(self, world: World, part_memory: int, **toy: Any) -> None:
        super().__init__(world, **toy)
        self.part_memory, self.size = part_memory, PartSize(8)

    def begin_step(self, batch: Positions, batch_slots: Positions, step: int) -> None:
        """Compute the outputs of this rank's samples, and sum them over all ranks."""

        def outputs(rows: Positions) -> torch.Tensor:
            last_rank = self.world.rank == self.world.size - 1
            if last_rank and len(rows) > self.part_memory:
                _run_out_of_memory()
            with torch.no_grad():
                return torch.Tensor(self.module(self.inputs[batch[batch_slots[rows]]]))

        rows = np.arange(len(batch_slots), dtype=np.int64)
        parts = list(in_parts(outputs, rows, self.size, self.world))
        self.world.sum(torch.cat(parts).sum(dim=0))


def config(**changes: object) -> ToyLoop:
    """A short recipe."""
    values: dict[str, object] = {
        "epochs": 4,
        "learning_rate": 0.05,
        "global_batch_size": 15,
        "weight_decay": 0.0,
        "warmup_ratio": 0.1,
        "gradient_clip": 1.0,
        "ema_decay": 0.9,
    }
    return ToyLoop(**(values | changes))  # type: ignore[arg-type]


class WaitingWriter(CheckpointWriter):
    """Training waits for each checkpoint, so that none is due while the last is being written."""

    def save(self, state: TrainingState) -> None:
        """Write the checkpoint to its end."""
        super().save(state)
        self.close()


def train(
    world: World,
    changes: dict[str, object],
    checkpoints: CheckpointWriter | None = None,
    **toy: Any,
) -> tuple[Toy, FitResult]:
    """Fit the toy; `toy` are further arguments of Toy."""
    task = Prepared(world, **toy) if "part_memory" in toy else Toy(world, **toy)
    return task, fit(task, config(**changes), world, checkpoints=checkpoints)


def main() -> None:
    """One rank; the main rank writes the weights beside the job."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    job = parser.parse_args().config
    rank = 0
    try:
        with process_group() as world:
            rank = world.rank
            random.seed(rank)
            np.random.seed(rank)
            document = json.loads(job.read_text(encoding="utf-8"))
            entry = document.pop("checkpoints", None)
            every = LaunchConfig(checkpoint_steps=1)
            checkpoints = WaitingWriter.of_job(entry, every) if entry else None
            task, _ = train(world, checkpoints=checkpoints, **document)
            if world.is_main:
                save_file(task.module.state_dict(), job.parent / "weights.safetensors")
    except Exception as error:
        report_error(job.parent, rank, error)
        leave(1)
    leave(0)


if __name__ == "__main__":
    main()

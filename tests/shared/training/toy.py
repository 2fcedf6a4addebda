"""A least-squares task for the training loop, also runnable as a torchrun module: `-m tests.shared.training.toy`."""

import argparse
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch import nn

from components.shared.training.distributed import World, leave, process_group
from components.shared.training.launch import report_error
from components.shared.training.loop import FitResult, LoopConfig, fit

Positions = npt.NDArray[np.int64]


class Toy:
    """Linear regression of 40 samples; `fault` makes a chosen rank fail at a chosen step."""

    n_samples = 40

    def __init__(self, world: World, fault: str = "", memory: int = 10**9) -> None:
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(self.n_samples, 5, generator=generator)
        self.targets = self.inputs @ torch.arange(5.0) + 1
        torch.manual_seed(1)
        self.module: nn.Module = nn.Linear(5, 1)
        self.world, self.fault, self.memory = world, fault, memory
        self.batch_sizes: list[int] = []

    def loss(self, model: nn.Module, positions: Positions, slots: Positions, step: int) -> torch.Tensor:
        """Sum of squared errors."""
        self.batch_sizes.append(len(positions))
        last_rank = self.world.rank == self.world.size - 1
        if last_rank and len(positions) > self.memory:
            raise torch.OutOfMemoryError("planted")
        if last_rank and step == 3 and self.fault == "raise":
            raise ValueError("planted failure")
        loss = (model(self.inputs[positions])[:, 0] - self.targets[positions]).square().sum()
        return loss * float("nan") if last_rank and step == 3 and self.fault == "nan" else loss

    def evaluate(self) -> dict[str, float]:
        """Negative mean squared error over all samples."""
        with torch.no_grad():
            error = (self.module(self.inputs)[:, 0] - self.targets).square().mean()
        return {"score": -float(error)}


def config(**changes: object) -> LoopConfig:
    """A short recipe."""
    values: dict[str, object] = {
        "epochs": 4, "learning_rate": 0.05, "global_batch_size": 15, "micro_batch_size": 0, "weight_decay": 0.0,
        "warmup_share": 0.1, "gradient_clip": 1.0, "ema_decay": 0.9, "patience": 0, "monitor": "score",
        "precision": "fp32", "seed": 0,
    }  # fmt: skip
    return LoopConfig(**(values | changes))  # type: ignore[arg-type]


def train(world: World, changes: dict[str, object], fault: str = "", memory: int = 10**9) -> tuple[Toy, FitResult]:
    """Fit the toy."""
    task = Toy(world, fault, memory)
    return task, fit(task, config(**changes), world)


def main() -> None:
    """One rank; the main rank writes the weights beside the job."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    job = parser.parse_args().config
    rank = 0
    try:
        with process_group() as world:
            rank = world.rank
            task, _ = train(world, **json.loads(job.read_text(encoding="utf-8")))
            if world.is_main:
                save_file(task.module.state_dict(), job.parent / "weights.safetensors")
    except Exception as error:
        report_error(job.parent, rank, error)
        leave(1)
    leave(0)


if __name__ == "__main__":
    main()

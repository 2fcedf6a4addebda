"""The one training loop: how does a task's loss become trained weights, on any number of processes?

`fit` runs every phase that trains. The task says what a sample's loss is; the loop owns batches, micro-batches,
gradient accumulation, DDP, the optimiser and its schedule, weight averaging, early stopping and the record of metrics.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn
from transformers import get_cosine_schedule_with_warmup

from components.shared.errors import PermanentError, TransientError
from components.shared.progress import progress
from components.shared.training.distributed import World
from components.shared.training.sampler import global_batch, steps_per_epoch


class Task(Protocol):
    """What is trained. `module` holds the parameters; `n_samples` counts the training samples."""

    module: nn.Module
    n_samples: int

    def loss(
        self, model: nn.Module, positions: npt.NDArray[np.int64], slots: npt.NDArray[np.int64], step: int
    ) -> torch.Tensor:
        """Sum (not mean) of the losses of the samples at `positions`, called through `model` (the DDP wrapper).

        `slots` are their places in the global batch: randomness is drawn for the whole batch and indexed by them,
        so that it does not depend on the number of processes or the size of micro-batches.
        """

    def evaluate(self) -> dict[str, float]:
        """Metrics on the selection split with the module's present weights, equal on every rank."""


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """Hyper-parameters of `fit`; sizes count samples over all processes unless said otherwise."""

    epochs: int
    learning_rate: float
    global_batch_size: int
    micro_batch_size: int  # per process; 0: the process's whole share of the global batch
    weight_decay: float
    warmup_share: float  # of all steps
    gradient_clip: float  # global L2 norm; 0: off
    ema_decay: float  # 0: off
    patience: int  # epochs without improvement; 0: never stop early
    monitor: str  # key of Task.evaluate, larger is better
    precision: str  # fp32 or bf16 (autocast; weights stay fp32)
    seed: int


@dataclass
class FitResult:
    """What happened. `history` has one row per epoch; the module holds the best epoch's weights."""

    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_value: float = -math.inf
    micro_batch_size: int = 0
    stopped_early: bool = False


def fit(
    task: Task, config: LoopConfig, world: World, on_epoch: Callable[[list[dict[str, float]]], None] | None = None
) -> FitResult:
    """Train `task.module` in place and leave the best epoch's weights in it.

    Raises PermanentError on a non-finite loss or gradient, before the optimiser step, naming step and rank;
    TransientError when a single sample does not fit into memory.
    """
    trainer = _Trainer(task, config, world)
    result = FitResult(micro_batch_size=trainer.micro_batch_size)
    best = trainer.averaged_weights()
    for epoch in range(config.epochs):
        steps = range(epoch * trainer.steps_per_epoch, (epoch + 1) * trainer.steps_per_epoch)
        label = f"epoch {epoch + 1}/{config.epochs}"
        losses = [trainer.step(step) for step in progress(steps, label, quiet=not world.is_main)]
        with trainer.averaged():
            metrics = task.evaluate()
        row = {"epoch": float(epoch + 1), "train/loss": float(np.mean(losses)), "train/lr": trainer.learning_rate}
        result.history.append(row | metrics)
        if on_epoch is not None and world.is_main:
            on_epoch(result.history)
        if metrics[config.monitor] > result.best_value:
            result.best_value, result.best_epoch, best = metrics[config.monitor], epoch + 1, trainer.averaged_weights()
        elif config.patience and epoch + 1 - result.best_epoch >= config.patience:
            result.stopped_early = True
            break
    trainer.load(best)
    result.micro_batch_size = trainer.micro_batch_size
    return result


class _Trainer:
    """The mutable state of one `fit`: DDP wrapper, optimiser, schedule, averaged weights."""

    def __init__(self, task: Task, config: LoopConfig, world: World) -> None:
        if config.global_batch_size < world.size:
            raise PermanentError(f"global_batch_size={config.global_batch_size} is less than {world.size} processes")
        self.task, self.config, self.world = task, config, world
        self.parameters = [p for p in task.module.parameters() if p.requires_grad]
        gpu = world.device.type == "cuda"
        self.model = DistributedDataParallel(task.module, device_ids=[world.device] if gpu else None)
        # Biases, norms and other vectors are not decayed, as is usual for transformers.
        groups = [
            {"params": [p for p in self.parameters if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in self.parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=config.learning_rate)
        self.steps_per_epoch = steps_per_epoch(task.n_samples, config.global_batch_size)
        total = self.steps_per_epoch * config.epochs
        self.schedule = get_cosine_schedule_with_warmup(self.optimizer, round(total * config.warmup_share), total)
        self.average = [p.detach().clone() for p in self.parameters]
        share = math.ceil(min(config.global_batch_size, task.n_samples) / world.size)
        self.micro_batch_size = min(config.micro_batch_size or share, share)

    @property
    def learning_rate(self) -> float:
        """The rate of the next step."""
        return float(self.schedule.get_last_lr()[0])

    def step(self, step: int) -> float:
        """One optimiser step on one global batch; returns this rank's part of the mean loss."""
        batch = global_batch(self.task.n_samples, self.config.global_batch_size, self.config.seed, step)
        slots = np.arange(len(batch), dtype=np.int64)[self.world.rows(len(batch))]
        self.model.train()  # type: ignore[no-untyped-call]
        # Memory grows until the optimiser's state exists, after the first step; batches never change their shape.
        if step in (0, 1):
            while not self._fits(batch, slots, step):
                self._halve_micro_batch(step)
        loss = self._accumulate(batch, slots, step)
        limit = self.config.gradient_clip or math.inf
        norm = float(nn.utils.clip_grad_norm_(self.parameters, limit))
        if not math.isfinite(norm):
            raise PermanentError(f"gradient norm is {norm} at step {step}; lower learning_rate or check the data")
        self.optimizer.step()
        self.schedule.step()
        self._update_average(step)
        return loss

    def _fits(self, batch: npt.NDArray[np.int64], slots: npt.NDArray[np.int64], step: int) -> bool:
        """Rehearse one micro-batch without communication, so that a rank may fail alone; all ranks get the verdict."""
        chunk = slots[: self.micro_batch_size]
        out_of_memory = False
        try:
            with self.model.no_sync():
                self._loss(batch, chunk, step).backward()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            out_of_memory = _is_out_of_memory(error)
            if not out_of_memory:
                raise
        self.optimizer.zero_grad(set_to_none=True)
        return not any(self.world.gather_codes(int(out_of_memory)))

    def _accumulate(self, batch: npt.NDArray[np.int64], slots: npt.NDArray[np.int64], step: int) -> float:
        """Gradients of the mean loss over the global batch, accumulated over micro-batches.

        Ranks agree on a non-finite loss before the last backward pass, the only one that communicates: a rank that
        stopped alone would leave the others waiting in a collective call.
        """
        self.optimizer.zero_grad(set_to_none=True)
        chunks = np.array_split(slots, math.ceil(len(slots) / self.micro_batch_size))
        # DDP averages gradients over ranks; a sum over the rank's samples times this factor makes it the batch mean.
        scale = self.world.size / len(batch)
        total = 0.0
        for chunk in chunks[:-1]:
            with self.model.no_sync():
                loss = self._loss(batch, chunk, step) * scale
                loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        loss = self._loss(batch, chunks[-1], step) * scale
        total += float(loss.detach())
        codes = self.world.gather_codes(int(not math.isfinite(total)))
        if any(codes):
            raise PermanentError(
                f"loss is not finite at step {step} on rank {codes.index(1)}; "
                "lower learning_rate, or check the images and labels of this batch"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        return total

    def _loss(self, batch: npt.NDArray[np.int64], chunk: npt.NDArray[np.int64], step: int) -> torch.Tensor:
        with self._autocast():
            return self.task.loss(self.model, batch[chunk], chunk, step)

    def _halve_micro_batch(self, step: int) -> None:
        if self.micro_batch_size == 1:
            raise TransientError(f"out of memory at step {step} with one sample; use a smaller backbone or image_size")
        self.micro_batch_size = (self.micro_batch_size + 1) // 2
        if self.world.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.world.is_main:
            print(
                f"out of memory at step {step}: micro-batch halved to {self.micro_batch_size} per process, "
                f"global batch stays {self.config.global_batch_size}",
                flush=True,
            )

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.world.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

    def _update_average(self, step: int) -> None:
        # The usual warm-up of the decay: early on, the average follows the weights instead of the initialisation.
        decay = min(self.config.ema_decay, (1 + step) / (10 + step)) if self.config.ema_decay else 0.0
        current = [p.detach() for p in self.parameters]
        get_ema_multi_avg_fn(decay)(  # type: ignore[no-untyped-call]
            self.average, current, torch.tensor(step)
        )

    def averaged_weights(self) -> list[torch.Tensor]:
        """A copy of the averaged trainable weights."""
        return [tensor.clone() for tensor in self.average]

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Evaluate with averaged weights; the trained ones come back afterwards."""
        trained = [p.detach().clone() for p in self.parameters]
        self.load(self.average)
        self.task.module.eval()
        try:
            yield
        finally:
            self.load(trained)

    def load(self, weights: list[torch.Tensor]) -> None:
        """Copy `weights` into the trainable parameters."""
        with torch.no_grad():
            for parameter, value in zip(self.parameters, weights, strict=True):
                parameter.copy_(value)


def _is_out_of_memory(error: RuntimeError) -> bool:
    # CUDA has a class of its own; the CPU allocator raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)

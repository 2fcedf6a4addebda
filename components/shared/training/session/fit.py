"""The one training loop, from a task's loss to trained weights, on any number of processes.

`fit` runs every phase that trains. The task says what a sample's loss is; the loop owns epochs,
weight averaging, early stopping, the record of metrics and checkpoints. Interrupted at any step and
started again, it ends with the same bits; the result does not depend on the number of processes
beyond the rounding of sums. Neither Lightning nor Accelerate promises that: own code.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from components.shared.contracts.adaptations import monitored
from components.shared.contracts.errors import PermanentError
from components.shared.contracts.listing import say
from components.shared.contracts.options import LoopConfig
from components.shared.contracts.progress import progress
from components.shared.training.checkpoint.writer import CheckpointWriter
from components.shared.training.loop.distributed import World
from components.shared.training.loop.measurements import Measurements
from components.shared.training.loop.state import Position, capture, restore
from components.shared.training.loop.task import EpochTask, Task, WatchedTask
from components.shared.training.loop.trainer import Trainer

__all__ = ["FitResult", "Task", "fit"]

History = list[dict[str, float]]


@dataclass
class FitResult:
    """What happened. `history` has one row per epoch; the module holds the best epoch's weights."""

    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_value: float = -math.inf
    micro_batch_size: int = 0
    stopped_early: bool = False


def fit(
    task: Task,
    config: LoopConfig,
    world: World,
    on_epoch: Callable[[History], None] | None = None,
    checkpoints: CheckpointWriter | None = None,
    measurements: Measurements | None = None,
    *,
    quiet: bool = False,
) -> FitResult:
    """Train `task.module` in place and leave the best epoch's weights in it.

    `on_epoch` gets the history so far, on the main rank, with what `measurements` joins to it. With
    `checkpoints`, training goes on where an earlier one with the same inputs was. A `quiet` one has
    no progress bar, because it is one of hundreds. Raises
    PermanentError on a non-finite loss or gradient, before the optimiser step, naming step and
    rank; TransientError when a single sample does not fit into memory.
    """
    measured = measurements or Measurements(world)
    run = _Run(task, config, world, checkpoints, measured, quiet=quiet or not world.is_main)
    try:
        return run.result(on_epoch)
    finally:
        measured.close()
        run.trainer.close()


class _Run:
    """One training under way: the trainer, how far it is, and its checkpoints."""

    def __init__(
        self,
        task: Task,
        config: LoopConfig,
        world: World,
        checkpoints: CheckpointWriter | None,
        measurements: Measurements,
        *,
        quiet: bool,
    ) -> None:
        self.measurements, self.quiet = measurements, quiet
        self.task, self.config, self.world, self.checkpoints = task, config, world, checkpoints
        self.trainer = Trainer(task, config, world)
        self.position = Position(best=self.trainer.averaged_weights(), best_value=-math.inf)

    def result(self, on_epoch: Callable[[History], None] | None) -> FitResult:
        """Train to the end, from the checkpoint that was found, if any."""
        self.resume()
        self.measurements.begin(self.n_steps_left)
        stopped_early = False

        for epoch in range(self.position.epoch, self.config.epochs):
            self.train(epoch)
            self.evaluate(epoch)
            self.measurements.end_epoch(epoch + 1)
            if on_epoch is not None and self.world.is_main:
                on_epoch(self.measurements.joined(self.position.history))
            waited = epoch + 1 - max(self.position.improved_epoch, self.trainer.warmup_epochs)
            stopped_early = self.config.patience is not None and waited >= self.config.patience
            if stopped_early:
                break

        self.trainer.load(self.position.best)
        if self.checkpoints is not None:
            self.checkpoints.close()

        return FitResult(
            self.position.history,
            self.position.best_epoch,
            self.position.best_value,
            self.trainer.micro_batch_size,
            stopped_early,
        )

    def resume(self) -> None:
        """Go on from the checkpoint that was found at the start, if any."""
        if self.checkpoints is None:
            return

        if self.checkpoints.micro_batch_limit:
            self.trainer.limit_micro_batch(self.checkpoints.micro_batch_limit)

        state = self.checkpoints.found()
        if state is not None:
            exactness = restore(state, self.trainer, self.position, self.world)
            if self.world.is_main:
                say(f"resumed at step {state.step}; the result will be {exactness}")

    @property
    def n_steps_left(self) -> int:
        """Steps to come."""
        done = self.position.epoch * self.trainer.steps_per_epoch + len(self.position.losses)
        return self.trainer.n_steps - done

    def train(self, epoch: int) -> None:
        """The remaining steps of an epoch."""
        n_steps = self.trainer.steps_per_epoch
        steps = range(epoch * n_steps + len(self.position.losses), (epoch + 1) * n_steps)
        self.position.epoch = epoch

        label = f"epoch {epoch + 1}/{self.config.epochs}"
        for step in progress(steps, label, quiet=self.quiet):
            # The main rank's clock decides for all.
            due = (
                self.checkpoints is not None
                and self.world.is_main
                and self.checkpoints.due(step + 1)
            )

            with self.measurements.step():
                loss, save = self.trainer.step(step, request=due)
            self.position.losses.append(loss)
            if save:
                self._save()

    def evaluate(self, epoch: int) -> None:
        """Evaluate a finished epoch, and remember its averaged weights if they are the best."""
        with self.trainer.averaged():
            metrics = self.task.evaluate()

        position, monitor = self.position, self.task.monitor
        value = float(epoch + 1) if monitor is None else monitored(monitor, metrics[monitor])
        if not math.isfinite(value):
            raise PermanentError(
                f"{monitor} is {value} after epoch {epoch + 1} and cannot select an epoch; choose"
                " another monitor, or see that VAL_SELECT has images of every class"
            )

        loss = float(np.mean(position.losses))
        row = {
            "epoch": float(epoch + 1),
            "train/loss": loss,
            "train/lr": self.trainer.learning_rate,
        }

        if isinstance(self.task, EpochTask):
            row |= self.task.epoch_metrics(epoch)
        position.history.append(row | metrics)

        position.losses, position.epoch = [], epoch + 1
        # Until the learning rate has risen, weights are hardly trained; such an epoch is the best
        # one only for want of another.
        warming_up = position.best_epoch <= self.trainer.warmup_epochs
        if value > position.best_value or warming_up:
            position.improved_epoch = epoch + 1
        # Of equal epochs the later one has seen more.
        if value >= position.best_value or warming_up:
            position.best_value, position.best_epoch = value, epoch + 1
            position.best = self.trainer.averaged_weights()

        if isinstance(self.task, WatchedTask):
            self.task.after_epoch(position.history)

    def _save(self) -> None:
        state = capture(self.trainer, self.position, self.world)
        if self.checkpoints is not None and self.world.is_main:
            self.checkpoints.save(state)

"""What a phase gives to the training loop, and the hyper-parameters of the loop."""

from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from components.shared.training.loop.read_ahead import ReadAhead


class Task(Protocol):
    """What is trained. `module` holds the parameters; `n_samples` counts the training samples."""

    module: nn.Module
    n_samples: int

    @property
    def monitor(self) -> str | None:
        """Key of `evaluate` that selects the epoch (`monitored`); None: the last epoch."""

    def loss(
        self,
        model: nn.Module,
        positions: npt.NDArray[np.int64],
        batch_slots: npt.NDArray[np.int64],
        step: int,
    ) -> torch.Tensor:
        """Return the sum (not mean) of the losses of the samples at `positions`.

        It is called through `model`: `module` itself, or its DDP wrapper.

        `batch_slots` are their positions in the global batch: randomness is drawn for the whole
        batch and indexed by them, so that it does not depend on the number of processes or the
        size of micro-batches.
        """

    def evaluate(self) -> dict[str, float]:
        """Metrics on the selection split with the module's present weights, equal on every rank."""


@runtime_checkable
class ReadingTask(Task, Protocol):
    """A task whose steps read stored images.

    `loss` takes the images at its `positions` from `reader`, or `begin_step` those of the whole
    step (`TeachingTask`). The loop tells `reader` beforehand which come next, and closes it when
    the training ends.
    """

    reader: ReadAhead


@runtime_checkable
class BatchTask(Task, Protocol):
    """A task whose loss is a function of the whole global batch."""

    def begin_step(
        self, batch: npt.NDArray[np.int64], batch_slots: npt.NDArray[np.int64], step: int
    ) -> None:
        """Prepare what the losses of a step share, before any `loss`; may be collective.

        It is called with the weights at which gradients are taken.

        Args:
            batch: (B,) positions of the global batch's samples in TRAIN.
            batch_slots: (n,) those of `batch` that are this rank's.
            step: Number of the step.
        """


@runtime_checkable
class TeachingTask(BatchTask, Protocol):
    """A task whose targets come from the running average of its own weights.

    `teacher` has parameters of the same names as `module`: the trainable ones hold the average,
    which the loop moves in place after every step and keeps in checkpoints. Further state belongs
    into buffers of `module`. `begin_step` prepares the targets.
    """

    teacher: nn.Module


@runtime_checkable
class EpochTask(Task, Protocol):
    """A task that records something of its epochs besides the metrics on the selection split."""

    def epoch_metrics(self, epoch: int) -> dict[str, float]:
        """Return values of the epoch (from 0) that follow from its samples alone."""


@runtime_checkable
class WatchedTask(Task, Protocol):
    """A task that is told how its training goes, and may end it by an error."""

    def after_epoch(self, history: list[dict[str, float]]) -> None:
        """Look at the rows of all epochs so far, on every rank.

        After an interruption the rows of earlier attempts are among them.
        """


@runtime_checkable
class FreshTask(Task, Protocol):
    """A task of which one part is new, and the rest starts from a trained state."""

    fresh: nn.Module

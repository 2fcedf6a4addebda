"""One optimizer step on one global batch, on any number of processes.

Micro-batches, gradient accumulation, DDP, AdamW with its schedule or PROFIT around it, and the
weight average; the loop above decides when.
"""

import contextlib
import math
import time
from collections.abc import Iterator
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import get_ema_multi_avg_fn

from components.shared.contracts.errors import PermanentError, TransientError
from components.shared.contracts.listing import say
from components.shared.contracts.options import BackboneLoopConfig, LoopConfig
from components.shared.contracts.random_streams import SampleOrderStream
from components.shared.training.loop.distributed import World, is_out_of_memory
from components.shared.training.loop.experimental.profit import ReferenceStep
from components.shared.training.loop.halving import head_room, release
from components.shared.training.loop.sampler import global_batch, steps_per_epoch
from components.shared.training.loop.task import (
    BatchTask,
    FreshTask,
    ReadingTask,
    Task,
    TeachingTask,
)

Positions = npt.NDArray[np.int64]

# The search for a micro-batch: so many sizes, passes of each that are timed, and by how much a
# smaller one must be faster.
_N_SIZES, _N_TIMED, _WORTHWHILE = 4, 2, 1.03


class Trainer:
    """The mutable state of one training: DDP wrapper, optimiser, schedule, averaged weights.

    `names` and `parameters` are the trainable parameters, in one order; `average` holds their
    running mean.
    """

    def __init__(self, task: Task, config: LoopConfig, world: World) -> None:
        if config.global_batch_size < world.size:
            raise PermanentError(
                f"global_batch_size={config.global_batch_size} is less than {world.size} processes"
            )

        self.task, self.config, self.world = task, config, world
        trainable = [(name, p) for name, p in task.module.named_parameters() if p.requires_grad]
        self.names, self.parameters = [name for name, _ in trainable], [p for _, p in trainable]

        world.record_within(task.module)
        gpu = world.device.type == "cuda"
        self.model: nn.Module = task.module
        # One process has nobody to exchange gradients with, and need not copy them into buckets.
        if world.size > 1:
            # Buffers follow from the weights and from sums over all ranks: equal everywhere.
            self.model = DistributedDataParallel(
                task.module,
                device_ids=[world.device] if gpu else None,
                forward_sync_buffers=False,
                # Without a copy of all gradients.
                gradient_as_bucket_view=True,
            )

        # Biases, norms and other vectors are not decayed, as is usual for transformers.
        groups = [
            {
                "params": [p for p in self.parameters if p.ndim > 1],
                "weight_decay": config.weight_decay,
            },
            {"params": [p for p in self.parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]

        self.optimizer = torch.optim.AdamW(
            [g for g in groups if g["params"]],
            lr=config.learning_rate,
            # One kernel for all parameters. On CPUs it would only round otherwise.
            fused=gpu,
        )

        self.steps_per_epoch = steps_per_epoch(task.n_samples, config.global_batch_size)
        total = self.steps_per_epoch * config.epochs
        n_warmup = round(total * config.warmup_ratio)
        # Whole epochs at whose end the rate was still rising.
        self.warmup_epochs = n_warmup // self.steps_per_epoch
        self.schedule = LambdaLR(self.optimizer, partial(_rate, n_warmup=n_warmup, n_steps=total))
        self.n_steps = total
        self.reference = (
            ReferenceStep(self._trained_before(), config.reference_rate)
            if config.reference_rate
            else None
        )

        self.average = self._first_average()
        self._set_up = False  # whether the training mode was ever set

        samples_per_rank = math.ceil(min(config.global_batch_size, task.n_samples) / world.size)
        self.micro_batch_size = samples_per_rank
        self.limit_micro_batch(config.micro_batch_size or samples_per_rank)
        # Memory grows until the optimiser's state exists, after the first step; batches never
        # change their shape.
        self.probes_left = 2
        # Which size is the fastest differs from time to time, and with it the rounding of sums;
        # each size would be compiled anew.
        self.searching = (
            gpu
            and isinstance(config, BackboneLoopConfig)
            and config.micro_batch_size is None
            and config.compile == "off"
            and not torch.are_deterministic_algorithms_enabled()
        )

    @property
    def learning_rate(self) -> float:
        """The rate of the next step."""
        return float(self.schedule.get_last_lr()[0])

    def _set_training(self) -> None:
        """Set the training mode after an evaluation, and before the first step.

        It visits every module, which takes as long as a tenth of a step of a small backbone.
        """
        if not (self._set_up and self.task.module.training):
            self.model.train()
            self._set_up = True

    def limit_micro_batch(self, size: int) -> None:
        """Work on at most `size` samples at a time from here on.

        The launcher is told, for the case of a failure.
        """
        self.micro_batch_size = min(self.micro_batch_size, size)
        self.world.record_micro_batch(self.micro_batch_size)

    def step(self, step: int, request: bool = False) -> tuple[float, bool]:
        """Run one optimizer step on one global batch.

        Ranks agree on problems after the backward passes and before the weights change: a rank that
        stopped alone would leave the others waiting in a collective call. The losses stay on the
        device until then, so that the host waits for it once a step.

        Returns:
            This rank's part of the mean loss, and whether any rank made a `request` (to save a
            checkpoint: all ranks take part in one).

        Raises:
            PermanentError: the loss or the gradient is not finite.
        """
        self.world.record_progress(step)
        batch = self._batch(step)
        batch_slots = self._slots(batch)
        self._set_training()
        self._begin(batch, batch_slots, step)

        if self.probes_left:
            self.probe(batch, batch_slots, step)
            self.probes_left -= 1

        losses = []
        if self.reference is not None:
            losses.append(self._reference_gradients(step, batch[batch_slots]))
            self.reference.take()
            self._begin(batch, batch_slots, step)

        losses.append(self._gradients(batch, batch_slots, step))
        if self.reference is not None:
            self.reference.undo()

        norm = self._clipped_norm()
        loss, requested = self._agree(losses, norm, step, request)
        with self.world.timings.part("optimizer"):
            self.optimizer.step()
            self.schedule.step()
            self._update_average(step)

        return loss, requested

    def _clipped_norm(self) -> torch.Tensor:
        """Clip the gradients; returns the length that they had, a scalar on the device."""
        limit = self.config.gradient_clip or math.inf
        with self.world.timings.part("optimizer"):
            return nn.utils.clip_grad_norm_(self.parameters, limit)

    def _agree(
        self, losses: list[torch.Tensor], norm: torch.Tensor, step: int, request: bool
    ) -> tuple[float, bool]:
        """Read this step's numbers of all ranks from the device, at once.

        Returns the last of this rank's losses, and whether any rank made a request.
        """
        flag = torch.full((), float(request), device=norm.device)
        table = self.world.all_gather([*losses, norm, flag])
        for rank, values in enumerate(table):
            if not all(map(math.isfinite, values[: len(losses)])):
                raise PermanentError(
                    f"loss is not finite at step {step} on rank {rank}; lower learning_rate, or"
                    " check the images and labels of this batch"
                )

        *_, loss, length, _ = table[self.world.rank]
        if not math.isfinite(length):
            raise PermanentError(
                f"gradient norm is {length} at step {step}; lower learning_rate or check the data"
            )

        return loss, any(values[-1] for values in table)

    def _reference_gradients(self, step: int, following: Positions) -> torch.Tensor:
        """Compute gradients of other samples and other random draws than those of `step`.

        They are equal on every rank. Returns this rank's part of the mean loss.
        """
        batch = self._batch(step, SampleOrderStream.PROFIT_REFERENCE)
        slots = self._slots(batch)
        self._begin(batch, slots, self.n_steps + step)
        return self._gradients(batch, slots, self.n_steps + step, following)

    def _trained_before(self) -> list[nn.Parameter]:
        """Return the parameters that start from a trained state, near which PROFIT stays."""
        if not isinstance(self.task, FreshTask):
            return self.parameters
        fresh = {id(parameter) for parameter in self.task.fresh.parameters()}
        return [parameter for parameter in self.parameters if id(parameter) not in fresh]

    def warm_up_ddp_buckets(self) -> None:
        """Let DDP order its communication as it does after a first backward pass.

        The gradients are discarded. Over three and more ranks the order of a sum depends on it, so
        that without this a resumed training would differ in the last bits.
        """
        if self.world.size > 1:
            batch = self._batch(0)
            self._begin(batch, self._slots(batch), 0)
            self._accumulate(batch, self._slots(batch), 0, None)
            self.optimizer.zero_grad(set_to_none=True)

    def probe_again(self, step: int) -> None:
        """Probe the memory as at `step`, before a training goes on from a checkpoint.

        Another process may use the GPU since, or the GPU be another one.
        """
        self.world.record_progress()
        self.searching = False  # the checkpoint has the size that was found
        batch = self._batch(step)
        self._set_training()
        self._begin(batch, self._slots(batch), step)
        self.probe(batch, self._slots(batch), step)

    def _first_average(self) -> list[torch.Tensor]:
        """Return the tensors that hold the average: those of the task's teacher, if it has one.

        The teacher then always has the averaged weights.
        """
        if not isinstance(self.task, TeachingTask):
            return [p.detach().clone() for p in self.parameters]
        held = dict(self.task.teacher.named_parameters())
        return [held[name].detach() for name in self.names]

    def _begin(self, batch: Positions, batch_slots: Positions, step: int) -> None:
        if isinstance(self.task, BatchTask):
            with self.world.timings.part("forward"), self._autocast():
                self.task.begin_step(batch, batch_slots, step)

    def _batch(self, step: int, stream: int = SampleOrderStream.TRAINING) -> Positions:
        """Positions of the samples of `step`."""
        size, seed = self.config.global_batch_size, self.config.seed
        return global_batch(self.task.n_samples, size, seed, step, stream)

    def _slots(self, batch: Positions) -> Positions:
        """Places of this rank's samples in the global batch."""
        return np.arange(len(batch), dtype=np.int64)[self.world.rows(len(batch))]

    def _chunks(self, batch_slots: Positions) -> list[Positions]:
        """Places of the samples of each micro-batch."""
        return np.array_split(batch_slots, math.ceil(len(batch_slots) / self.micro_batch_size))

    def probe(self, batch: Positions, batch_slots: Positions, step: int) -> None:
        """Search the micro-batch, once; then halve it until it fits into every rank's memory.

        Raises TransientError where a single sample does not.
        """
        if self.searching:
            self._search_micro_batch(batch, batch_slots, step)
        while not self._fits(batch, batch_slots, step):
            self._halve_micro_batch(step)
        # What was held back is there for libraries that allocate for themselves, too.
        release(self.world)

    def _search_micro_batch(self, batch: Positions, batch_slots: Positions, step: int) -> None:
        """Choose the micro-batch by doubling until memory ends: the fastest size that fits.

        The sizes are the most that a process may take, its half, quarter and eighth. All ranks
        choose alike: a size is as fast as it is on the slowest rank.
        """
        self.searching = False
        most = self.micro_batch_size
        sizes = sorted({math.ceil(most / 2**halvings) for halvings in range(_N_SIZES)})

        rates: dict[int, float] = {}
        for size in sizes:
            self.micro_batch_size = size
            if not self._fits(batch, batch_slots, step):  # also warms up
                release(self.world)
                break
            rates[size] = size / self._seconds_of_pass(batch, batch_slots, step)

        if rates:
            enough = max(rates.values()) / _WORTHWHILE
            self.micro_batch_size = max(size for size, rate in rates.items() if rate >= enough)
        self.limit_micro_batch(self.micro_batch_size)
        if self.world.is_main and rates:
            found = ", ".join(f"{size}: {rate:.0f}" for size, rate in rates.items())
            say(f"micro-batch of {self.micro_batch_size} per process; samples/s by size: {found}")

    def _seconds_of_pass(self, batch: Positions, batch_slots: Positions, step: int) -> float:
        """Return the time of a forward and backward pass of one micro-batch, on the slowest rank.

        It is the shortest of a few.
        """
        found = []
        for _ in range(_N_TIMED):
            self._wait_for_device()
            began = time.perf_counter()
            self._fits(batch, batch_slots, step)
            self._wait_for_device()
            found.append(time.perf_counter() - began)
        slowest = max(self.world.all_gather_int(int(1e9 * min(found))))
        return max(slowest, 1) / 1e9

    def _wait_for_device(self) -> None:
        if self.world.device.type == "cuda":
            torch.cuda.synchronize(self.world.device)

    def _fits(self, batch: Positions, batch_slots: Positions, step: int) -> bool:
        """Run the memory probe: one micro-batch without communication; all ranks get the verdict.

        Without communication a rank may fail alone. It goes past DDP, whose forward pass may tell
        the other ranks the order of its buckets. Some memory is held back for other steps.
        """
        chunk = batch_slots[: self.micro_batch_size]
        out_of_memory = False
        held = None
        try:
            held = head_room(self.world.device)
            # As from the second micro-batch of a step on, when the first one's gradients are there.
            for parameter in self.parameters:
                parameter.grad = torch.zeros_like(parameter)
            self._backward(self._loss(self.task.module, batch, chunk, step))
        except RuntimeError as error:
            out_of_memory = is_out_of_memory(error)
            if not out_of_memory:
                raise

        del held
        self.optimizer.zero_grad(set_to_none=True)

        return not any(self.world.all_gather_int(int(out_of_memory)))

    def _gradients(
        self,
        batch: Positions,
        batch_slots: Positions,
        step: int,
        following: Positions | None = None,
    ) -> torch.Tensor:
        """`_accumulate`, with smaller micro-batches where memory runs out after all.

        Only of a process that is alone: the others may be waiting for one that failed, which
        the launcher starts again with half the micro-batch.
        """
        while True:
            try:
                return self._accumulate(batch, batch_slots, step, following)
            except RuntimeError as error:
                if self.world.size > 1 or not is_out_of_memory(error):
                    raise

            self.optimizer.zero_grad(set_to_none=True)
            self._halve_micro_batch(step % self.n_steps)

    def _accumulate(
        self, batch: Positions, batch_slots: Positions, step: int, following: Positions | None
    ) -> torch.Tensor:
        """Gradients of the mean loss over the global batch, accumulated over micro-batches.

        Only the last backward pass communicates.

        Args:
            batch: (B,) positions of the samples of the global batch.
            batch_slots: Places of this rank's samples in it.
            step: The step.
            following: Positions of the samples that this rank works on next; None: those of the
                next step.

        Returns:
            This rank's part of the mean loss: a scalar in double precision, on the device.
        """
        self.optimizer.zero_grad(set_to_none=True)
        chunks = self._chunks(batch_slots)
        if following is None:
            following = self._next_positions(step)

        # DDP averages gradients over ranks; a sum over the rank's samples times this factor makes
        # it the batch mean.
        scale = self.world.size / len(batch)
        total = torch.zeros((), dtype=torch.float64, device=self.world.device)

        for number, chunk in enumerate(chunks, start=1):
            last = number == len(chunks)
            self._expect(following if last else batch[chunks[number]])
            with contextlib.nullcontext() if last else self._no_sync():
                loss = self._loss(self.model, batch, chunk, step) * scale
                self._backward(loss)

            total += loss.detach()

        return total

    def _no_sync(self) -> contextlib.AbstractContextManager[None]:
        """Gradients stay on this rank inside."""
        if isinstance(self.model, DistributedDataParallel):
            return self.model.no_sync()
        return contextlib.nullcontext()

    def _next_positions(self, step: int) -> Positions:
        """Positions of the samples that the next step begins with; none after the last step."""
        if step + 1 >= self.n_steps:
            return np.empty(0, dtype=np.int64)
        streams = SampleOrderStream
        stream = streams.TRAINING if self.reference is None else streams.PROFIT_REFERENCE
        batch = self._batch(step + 1, stream)
        return batch[self._slots(batch)]

    def _expect(self, positions: Positions) -> None:
        """Let a task that reads images read them ahead, as many as it works on at a time."""
        if isinstance(self.task, ReadingTask) and len(positions):
            whole = isinstance(self.task, TeachingTask)
            self.task.reader.expect(positions if whole else self._chunks(positions)[0])

    def close(self) -> None:
        """End what the training has running beside it."""
        if isinstance(self.task, ReadingTask):
            self.task.reader.close()

    def _loss(
        self, model: nn.Module, batch: Positions, chunk: Positions, step: int
    ) -> torch.Tensor:
        self.world.record_progress()
        with self.world.timings.part("forward"), self._autocast():
            return self.task.loss(model, batch[chunk], chunk, step)

    def _backward(self, loss: torch.Tensor) -> None:
        with self.world.timings.part("backward"):
            loss.backward()  # type: ignore[no-untyped-call]

    def _halve_micro_batch(self, step: int) -> None:
        if self.micro_batch_size == 1:
            raise TransientError(
                f"out of memory at step {step} with one sample; use a smaller backbone,"
                " input_size or image_size"
            )

        self.limit_micro_batch((self.micro_batch_size + 1) // 2)
        release(self.world)
        if self.world.is_main:
            say(
                f"out of memory at step {step}: micro-batch halved to {self.micro_batch_size} per"
                f" process, global batch stays {self.config.global_batch_size}"
            )

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self.world.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"
        )

    def _update_average(self, step: int) -> None:
        decay = self.config.ema_decay or 0.0  # without averaging, the average is the weights
        if not isinstance(self.task, TeachingTask):
            # Early on, the average follows the weights instead of the initialisation. No warm-up
            # for an EMA teacher: a teacher that tracks the student closely gives a trivial target,
            # and training collapses.
            decay = min(decay, (1 + step) / (10 + step)) if decay else 0.0

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


def _rate(step: int, *, n_warmup: int, n_steps: int) -> float:
    """Return the fraction of the peak rate: a linear rise from above 0, then half a cosine.

    transformers' schedule has a first step of rate 0, of which nothing is learnt.
    """
    if step < n_warmup:
        return (step + 1) / (n_warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - n_warmup) / max(1, n_steps - n_warmup)))

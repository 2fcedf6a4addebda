"""Ranks of the torchrun group: their number, their rows, and collective calls.

The same code runs with one process and with many: gloo on CPU, NCCL on GPU. Nothing is exchanged as
pickled objects.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import nn

from components.shared.contracts.environment import Variable
from components.shared.training.launch.device import device_type
from components.shared.training.launch.heartbeat import LONGEST_SILENCE_SECONDS, Heartbeat
from components.shared.training.launch.memory import says_out_of_memory
from components.shared.training.loop.timings import Timings

# A collective call gives up after this time: after the launcher, which names the rank that hangs
# and not those that wait for it.
_TIMEOUT_SECONDS = LONGEST_SILENCE_SECONDS + 300


@dataclass(frozen=True)
class World:
    """Rank, size and device of this process in the torchrun group, and where its time goes."""

    rank: int
    size: int
    device: torch.device
    heartbeat: Heartbeat | None = None
    timings: Timings = field(default_factory=Timings, repr=False, compare=False)

    @property
    def is_main(self) -> bool:
        """Whether this rank writes files and shows progress."""
        return self.rank == 0

    def rows(self, count: int) -> slice:
        """Return this rank's contiguous part of `count` rows.

        The parts of all ranks are disjoint and complete.
        """
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def record_progress(self, step: int | None = None, *, waiting: bool = False) -> None:
        """Tell the launcher that this rank is alive.

        Called at the start of a step, and now and then in other long work.
        """
        if self.heartbeat is not None:
            self.heartbeat.record(self.rank, step, waiting=waiting)

    def record_within(self, module: nn.Module) -> None:
        """Tell the launcher from within `module`, from now on, that this rank is alive.

        It does so after each block on the way forward and each trained parameter on the way back:
        on a few cores, one pass of a large backbone takes many minutes. After the last parameter's
        gradient a backward pass only waits for those of other ranks.
        """
        if self.heartbeat is None:
            return

        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        n_ready = 0

        def record(*_: object) -> None:
            self.record_progress()

        def record_gradient(_: torch.Tensor) -> None:
            nonlocal n_ready
            n_ready = (n_ready + 1) % len(trained)
            self.record_progress(waiting=n_ready == 0)

        lists = [part for part in module.modules() if isinstance(part, nn.ModuleList)]
        for block in {block for blocks in lists for block in blocks}:
            block.register_forward_hook(record)
        for parameter in trained:
            parameter.register_post_accumulate_grad_hook(record_gradient)  # type: ignore[no-untyped-call]

    def record_micro_batch(self, size: int) -> None:
        """Tell the launcher how many samples this rank works on at a time."""
        if self.heartbeat is not None:
            self.heartbeat.record_micro_batch(self.rank, size)

    def on_device(self, values: npt.NDArray[Any]) -> torch.Tensor:
        """Copy a small array to the device, without waiting for what the device has to do before.

        An index that is on the host would be copied with such a wait.
        """
        return torch.from_numpy(values).to(self.device, non_blocking=True)

    def all_gather(self, values: Sequence[torch.Tensor]) -> list[list[float]]:
        """Return every rank's numbers, known to all; a collective call.

        `values`: K scalars on the device, which is waited for once. Returns K numbers of each rank.
        """
        table = torch.zeros((self.size, len(values)), dtype=torch.float64, device=self.device)
        table[self.rank] = torch.stack([value.double() for value in values])
        if self.size == 1:
            return table.tolist()

        self.record_progress(waiting=True)
        self._finish_own_work()
        with self.timings.part("communication"):
            dist.all_reduce(table)
            # A GPU's collective calls are waited for where their result is read.
            found: list[list[float]] = table.tolist()
        self.record_progress()
        return found

    def all_gather_int(self, code: int) -> list[int]:
        """Return one small integer per rank, known to all; a collective call.

        Ranks agree on a problem by it before they enter another collective call.
        """
        if self.size == 1:
            return [code]
        value = torch.full((), code, dtype=torch.float64, device=self.device)
        return [int(found) for (found,) in self.all_gather([value])]

    def gather_rows(self, part: torch.Tensor, count: int) -> torch.Tensor:
        """Concatenate every rank's `rows(count)` part, each row exactly once.

        (part, ...) -> (count, ...) on the CPU.
        """
        if self.size == 1:
            return part.detach().cpu()
        self._finish_own_work()
        whole = self.gather_on_device(part, count)
        with self.timings.part("communication"):
            return whole.cpu()

    def gather_on_device(self, part: torch.Tensor, count: int) -> torch.Tensor:
        """As `gather_rows`, with the result on the device, for which the host does not wait."""
        if self.size == 1:
            return part.detach()
        whole = torch.zeros((count, *part.shape[1:]), dtype=part.dtype, device=self.device)
        whole[self.rows(count)] = part
        # Each row is written by one rank and zero elsewhere, so that a sum is an exact gather
        # without padding.
        return self.sum(whole)

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum every rank's `tensor`, in place, and return it; a collective call."""
        if self.size > 1:
            self.record_progress(waiting=True)
            with self.timings.part("communication"):
                dist.all_reduce(tensor)
            self.record_progress()
        return tensor

    def _finish_own_work(self) -> None:
        """Wait for what this rank's GPU has to do, so that it does not count as communication."""
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether memory of the GPU or of the machine is exhausted; fewer samples may fit."""
    return says_out_of_memory(type(error).__name__, str(error))


@contextmanager
def process_group() -> Iterator[World]:
    """Join the torchrun group; it is left on success only.

    After an error the rank must end at once (`leave`): destroying the group would wait for the
    other ranks.
    """
    use_gpu = device_type() == "cuda"
    local_rank = int(os.environ[Variable.LOCAL_RANK])
    if use_gpu:
        torch.cuda.set_device(local_rank)
    device = torch.device("cuda", local_rank) if use_gpu else torch.device("cpu")

    dist.init_process_group(
        "nccl" if use_gpu else "gloo", timeout=timedelta(seconds=_TIMEOUT_SECONDS)
    )

    file = os.environ.get(Variable.HEARTBEAT)
    rank = dist.get_rank()
    heartbeat = Heartbeat(Path(file), first_rank=rank - local_rank) if file else None
    yield World(rank=rank, size=dist.get_world_size(), device=device, heartbeat=heartbeat)
    dist.destroy_process_group()


def leave(exit_code: int) -> None:
    """End a rank at once.

    gloo's threads sometimes abort the interpreter's normal shutdown after a finished run.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)

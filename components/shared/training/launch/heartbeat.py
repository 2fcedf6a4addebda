"""Heartbeat of the ranks: their last step and micro-batch; and their end with their parent.

Each rank records its progress in a small file mapped into memory, at no cost to a step; the
launcher reads it. torchrun notices only a process that ended, and collective calls only a peer that
is late by their timeout, without its step: own code.
"""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from components.shared.contracts.environment import Variable

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
# Before its first sign of life a rank imports torch and may download a backbone.
_START_SECONDS = 1800.0
_STEP, _TIME, _WAITING, _PID, _MICRO_BATCH = range(5)


class Heartbeat:
    """Signs of life of all ranks, in a file that is mapped into memory.

    It holds (R, 5) int64: step (-1: none yet), monotonic ns, waiting for others, pid, and samples
    per micro-batch (0: does not train).
    """

    def __init__(self, file: Path, n_processes: int = 0) -> None:
        """Open `file`; with `n_processes`, create it."""
        if n_processes:
            rows = np.zeros((n_processes, 5), dtype=np.int64)
            rows[:, _STEP] = -1
            file.write_bytes(rows.tobytes())
        self._rows = np.memmap(file, dtype=np.int64, mode="r+").reshape(-1, 5)
        self._created = time.monotonic()

    def record(self, rank: int, step: int | None = None, *, waiting: bool = False) -> None:
        """Record that `rank` is alive.

        `step`: the step that it begins, None where it goes on with the last; `waiting`: inside a
        collective call.
        """
        row = self._rows[rank]
        if step is not None:
            row[_STEP] = step
        row[_WAITING], row[_PID], row[_TIME] = waiting, os.getpid(), time.monotonic_ns()

    def record_micro_batch(self, rank: int, size: int) -> None:
        """Record that `rank` works on `size` samples at a time from here on."""
        self._rows[rank, _MICRO_BATCH] = size

    def micro_batch(self) -> int:
        """Return the samples that a rank works on at a time; 0 where none has begun to train."""
        return int(self._rows[:, _MICRO_BATCH].max())

    def last_step(self, rank: int) -> str:
        """Return where the rank was, in words."""
        step = int(self._rows[rank, _STEP])
        return f"in step {step}" if step >= 0 else "before the first step"

    def hung(self, limit_seconds: float) -> str:
        """Return the ranks without a sign of life for longer than the limit, in words.

        The text is empty where there are none. Where one hangs, the others wait for it: those that
        wait are named only if all do.
        """
        now = time.monotonic()
        silent = []
        for rank, row in enumerate(self._rows):
            began = bool(row[_TIME])
            seconds = now - (row[_TIME] / 1e9 if began else self._created)
            if seconds > (limit_seconds if began else max(limit_seconds, _START_SECONDS)):
                silent.append((rank, seconds))

        culprits = [
            (rank, seconds) for rank, seconds in silent if not self._rows[rank, _WAITING]
        ] or silent
        return "; ".join(
            f"rank {rank} hangs {self.last_step(rank)}: no sign of life for {seconds:.0f} s"
            for rank, seconds in culprits
        )

    def pids(self) -> list[int]:
        """Return the processes that gave a sign of life."""
        return [int(pid) for pid in self._rows[:, _PID] if pid]


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, however that ends."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have ended before the request was made.
    if os.getppid() != int(os.environ.get(Variable.PARENT, os.getppid())):
        os.kill(os.getpid(), signal.SIGKILL)

"""Heartbeat of the ranks: their last step and micro-batch.

Each rank records its progress in a small file mapped into memory, at no cost to a step; the
launcher reads it. torchrun notices only a process that ended, and collective calls only a peer that
is late by their timeout, without its step: own code.
"""

import os
import time
from pathlib import Path

import numpy as np

# No rank may be silent for longer. Before its first sign of life it imports torch and may download
# a backbone.
LONGEST_SILENCE_SECONDS = 1800.0
# A pause may be so many times as long as the longest before it: other work on the machine, or a
# batch with more masked patches.
_PAUSE_FACTOR = 5
_COLUMNS = 6
_STEP, _TIME, _WAITING, _PID, _MICRO_BATCH, _PAUSE = range(_COLUMNS)


class Heartbeat:
    """Signs of life of all ranks, in a file that is mapped into memory.

    It holds (R, 6) int64: step (-1: none yet), monotonic ns, waiting for others, pid, samples per
    micro-batch (0: does not train), and ns of the longest pause between two signs of own work.
    """

    def __init__(self, file: Path, n_processes: int = 0, *, first_rank: int = 0) -> None:
        """Open `file`; with `n_processes`, create it.

        `first_rank`: the lowest rank of this machine. Methods count ranks over all machines.
        """
        if n_processes:
            rows = np.zeros((n_processes, _COLUMNS), dtype=np.int64)
            rows[:, _STEP] = -1
            file.write_bytes(rows.tobytes())
        self._rows = np.memmap(file, dtype=np.int64, mode="r+").reshape(-1, _COLUMNS)
        self._first_rank = first_rank
        self._created = time.monotonic()

    def record(self, rank: int, step: int | None = None, *, waiting: bool = False) -> None:
        """Record that `rank` is alive.

        `step`: the step that it begins, None where it goes on with the last; `waiting`: inside a
        collective call.
        """
        row, now = self._rows[rank - self._first_rank], time.monotonic_ns()
        if step is not None:
            row[_STEP] = step

        # Time spent waiting for other ranks says nothing about this one's own work.
        if row[_TIME] and not row[_WAITING]:
            row[_PAUSE] = max(row[_PAUSE], now - row[_TIME])
        row[_WAITING], row[_PID], row[_TIME] = waiting, os.getpid(), now

    def record_micro_batch(self, rank: int, size: int) -> None:
        """Record that `rank` works on `size` samples at a time from here on."""
        self._rows[rank - self._first_rank, _MICRO_BATCH] = size

    def micro_batch(self) -> int:
        """Return the samples that a rank works on at a time; 0 where none has begun to train."""
        return int(self._rows[:, _MICRO_BATCH].max())

    def last_step(self, rank: int) -> str:
        """Return where the rank was, in words."""
        step = int(self._rows[rank - self._first_rank, _STEP])
        return f"in step {step}" if step >= 0 else "before the first step"

    def hung(self, limit_seconds: float, *, alone: bool = True) -> str:
        """Return the ranks without a sign of life for longer than the limit, in words.

        The text is empty where there are none. The limit grows with the work: five times the
        longest pause that any rank made so far, at most 30 minutes. Where one hangs, the others
        wait for it: those that wait are named only if all ranks are silent, and, unless this
        machine is `alone`, after 30 minutes: they may wait for another, whose launcher knows.
        """
        now, limit_seconds = time.monotonic(), self._limit(limit_seconds)
        silent = []
        for rank, row in enumerate(self._rows, start=self._first_rank):
            began = bool(row[_TIME])
            seconds = now - (row[_TIME] / 1e9 if began else self._created)
            if seconds > (limit_seconds if began else max(limit_seconds, LONGEST_SILENCE_SECONDS)):
                silent.append((rank, seconds))

        waiting = self._rows[:, _WAITING]
        culprits = [item for item in silent if not waiting[item[0] - self._first_rank]]
        if not culprits and len(silent) == len(self._rows):
            longest = 0.0 if alone else LONGEST_SILENCE_SECONDS
            culprits = [item for item in silent if item[1] > longest]

        return "; ".join(
            f"rank {rank} hangs {self.last_step(rank)}: no sign of life for {seconds:.0f} s"
            for rank, seconds in culprits
        )

    def _limit(self, least_seconds: float) -> float:
        pause = float(self._rows[:, _PAUSE].max()) / 1e9
        return max(least_seconds, min(_PAUSE_FACTOR * pause, LONGEST_SILENCE_SECONDS))

    def pids(self) -> list[int]:
        """Return the processes that gave a sign of life."""
        return [int(pid) for pid in self._rows[:, _PID] if pid]

"""Stop a writer between any two of its system calls, as a power cut would, and keep what it left on
disk.

Bytes that were not synced when the writer stopped may be gone: files written since their last fsync
are cut at a drawn length. Renames are kept, in their order: undoing one gives a state of an earlier
cut.
"""

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

CALLS = ("fsync", "replace", "rename", "mkdir", "unlink", "rmdir", "open")


class PowerCutError(BaseException):
    """The machine is off: nothing after this call happens, no cleanup either."""


class Disk:
    """Counts system calls below `root`, stops at call number `stop_at`, and then refuses every
    further one.
    """

    def __init__(self, root: Path, stop_at: int, chance: random.Random) -> None:
        self.root, self.stop_at, self.chance = root, stop_at, chance
        self.calls = 0
        self.synced: dict[int, int] = {}  # inode -> bytes that are safe

    @property
    def is_off(self) -> bool:
        return self.stop_at <= self.calls

    def call(
        self,
        name: str,
        real: Callable[..., Any],
        arguments: tuple[Any, ...],
        options: dict[str, Any],
    ) -> Any:
        if self.is_off:
            raise PowerCutError
        self.calls += 1
        if self.is_off:
            raise PowerCutError
        if name == "unlink":  # the inode may be given to another file
            self.synced.pop(os.stat(*arguments, **options).st_ino, None)
        result = real(*arguments, **options)
        if name == "fsync":
            status = os.fstat(arguments[0])
            self.synced[status.st_ino] = status.st_size
        return result

    def lose_unsynced(self) -> None:
        """Cut every file that has bytes beyond its last fsync."""
        for file in self.root.rglob("*"):
            if file.is_file() and not file.is_symlink():
                status = file.stat()
                safe = self.synced.get(status.st_ino, 0)
                if status.st_size > safe:
                    os.truncate(file, self.chance.randint(safe, status.st_size))


@contextmanager
def power_cut(root: Path, stop_at: int, chance: random.Random) -> Iterator[Disk]:
    """Whatever runs inside stops at the given call; afterwards `root` is as a reader finds it after
    the restart.
    """
    disk = Disk(root, stop_at, chance)
    known = {file.stat().st_ino: file.stat().st_size for file in root.rglob("*") if file.is_file()}
    disk.synced.update(known)  # what was there before is safe

    def patched(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments, **options: disk.call(name, real, arguments, options)

    calls = {name: patched(name, getattr(os, name)) for name in CALLS}
    with mock.patch.multiple(os, **calls), suppress(PowerCutError):
        yield disk
    disk.lose_unsynced()

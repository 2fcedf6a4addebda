"""Folders that belong to a process: a lock tells whether their owner is alive, however it ended."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_LOCK = ".owner"
_PREFIX = "streetvision-"
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def owning(folder: Path) -> Iterator[int]:
    """Own an existing folder until the end of the context, or of this process.

    Yields the descriptor of the lock: a process that inherits it (`Popen(pass_fds=...)`) owns the
    folder too until it ends. On a file system without locks the folder always counts as owned.
    """
    with locked(folder / _LOCK, _FLAGS | os.O_CREAT) as descriptor:
        yield descriptor


@contextlib.contextmanager
def locked(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    """Keep other processes out of this context for the same file or folder; they wait.

    Yields the descriptor of the lock. On a file system without locks nobody waits.
    """
    descriptor = os.open(path, flags, 0o600)
    try:
        with contextlib.suppress(OSError):  # no locks here
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def inheriting(folder: Path) -> Iterator[bool]:
    """Yield whether the folder had an owner and all its owners have ended.

    Then nobody else inherits it inside the context.
    """
    try:
        descriptor = os.open(folder / _LOCK, _FLAGS)
    except OSError:  # never owned, gone meanwhile, or another user's
        yield False
        return

    try:
        yield _is_free(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def scratch(purpose: str) -> Iterator[Path]:
    """Yield an empty temporary folder, which is removed afterwards.

    The folders that killed processes have left are removed before.
    """
    _remove_left_scratch()
    # The name that others look for is given to it when it is owned.
    new = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}"))
    with owning(new):
        folder = new.rename(new.with_name(f"{_PREFIX}{purpose}-{new.name.rpartition('-')[2]}"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_left_scratch() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with inheriting(folder) as is_left:
            if is_left:
                shutil.rmtree(folder, ignore_errors=True)


def _is_free(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # owned, or no locks here
        return False
    return True

"""A file system of a few megabytes: what is written beyond them meets a full disk."""

import contextlib
import ctypes
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(n_bytes: int) -> Iterator[Path]:
    """Mount a tmpfs of this size for the block; skip the test where that is not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    with tempfile.TemporaryDirectory() as folder:
        target = os.fsencode(folder)
        if libc.mount(b"tmpfs", target, b"tmpfs", 0, f"size={n_bytes}".encode()) != 0:
            pytest.skip(f"no file system can be mounted: {os.strerror(ctypes.get_errno())}")
        try:
            yield Path(folder)
        finally:
            assert libc.umount2(target, 2) == 0  # MNT_DETACH

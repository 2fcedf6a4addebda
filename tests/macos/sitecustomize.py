"""Loaded by every Python process of a test: takes away what Linux has and macOS has not.

The names are those of Python 3.11's documentation of os and select whose availability is Linux, or
excludes macOS. `/proc` stays, and code that reads it is not found out.
"""

import ctypes
import os
import select
from typing import Any

OF_LINUX = {
    os: (
        "copy_file_range eventfd fdatasync getrandom getresgid getresuid getxattr listxattr"
        " memfd_create pidfd_open pipe2 posix_fadvise posix_fallocate removexattr"
        " sched_getaffinity sched_getparam sched_getscheduler sched_setaffinity sched_setparam"
        " sched_setscheduler setresgid setresuid setxattr splice unshare waitid O_DIRECT O_PATH"
        " O_TMPFILE"
    ),
    select: "epoll",
}

for module, names in OF_LINUX.items():
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)

_symbol = ctypes.CDLL.__getattr__


def _without_prctl(library: ctypes.CDLL, name: str) -> Any:
    if name == "prctl":
        raise AttributeError(f"dlsym(RTLD_DEFAULT, {name}): symbol not found")
    return _symbol(library, name)


ctypes.CDLL.__getattr__ = _without_prctl  # type: ignore[method-assign]

"""What this machine offers a process, in a form that Linux and macOS have."""

import os


def n_usable_cores() -> int:
    """Return the cores that this process may use; on macOS, which cannot limit them, all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

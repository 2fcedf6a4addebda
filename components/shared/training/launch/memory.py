"""Out of memory: what errors say of it, and whom the kernel killed for it in this container."""

from pathlib import Path

__all__ = ["n_oom_kills", "says_out_of_memory"]

# A container sees its own control group at the root; a machine's root group has no such file.
# "oom_kill: the number of processes belonging to this cgroup killed by any kind of OOM killer"
# (docs.kernel.org/admin-guide/cgroup-v2.html).
_EVENTS = Path("/sys/fs/cgroup/memory.events")
_ERRORS = ("OutOfMemoryError", "MemoryError")
_MESSAGES = (
    "can't allocate memory",
    "CUDA out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_NOT_SUPPORTED",  # what cuDNN says where no algorithm's workspace fits
)


def n_oom_kills() -> int | None:
    """Return how many processes of this container the kernel killed so far, or None.

    None: nothing counts them.
    """
    try:
        lines = _EVENTS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    counts = dict(line.split(" ", 1) for line in lines if " " in line)
    return int(counts["oom_kill"]) if "oom_kill" in counts else None


def says_out_of_memory(error_class: str, message: str) -> bool:
    """Whether an error, by the name of its class and its message, is that memory is exhausted.

    torch has a class for its GPU allocator; the CPU's allocator and the libraries of the GPU, which
    allocate for themselves, raise a RuntimeError.
    """
    return error_class in _ERRORS or any(text in message for text in _MESSAGES)

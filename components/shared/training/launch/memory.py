"""The kernel's count of processes that it killed because the container was out of memory."""

from pathlib import Path

__all__ = ["n_oom_kills"]

# A container sees its own control group at the root; a machine's root group has no such file.
# "oom_kill: the number of processes belonging to this cgroup killed by any kind of OOM killer"
# (docs.kernel.org/admin-guide/cgroup-v2.html).
_EVENTS = Path("/sys/fs/cgroup/memory.events")


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

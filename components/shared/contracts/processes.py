"""Processes that end with their parent, however that ends.

`python -m components.shared.contracts.processes MODULE ...` runs a module in such a process: from
its first moment, and not only when the module has imported torch, which can take many seconds.
"""

import ctypes
import os
import runpy
import signal
import sys
import threading
import time

from components.shared.contracts.environment import Variable

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_WATCH_SECONDS = 0.5


def main() -> None:
    """Run the module that the first argument names, with the arguments that follow it."""
    end_with_parent()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def end_with_parent() -> None:
    """Have this process killed when its parent ends, however that ends.

    Linux does so by itself; macOS has no such request, and a thread looks twice a second.
    """
    parent = int(os.environ.get(Variable.PARENT, os.getppid()))
    if not request_end_with(parent):
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def request_end_with(parent: int) -> bool:
    """Ask the kernel to kill this process, and what it becomes by exec, when `parent` ends.

    Returns whether the kernel can; the parent is the thread that started this process.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is None:
        return False

    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have ended before the request was made.
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)

    return True


def _end_after(parent: int) -> None:
    """Kill this process once `parent` is no longer its parent."""
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()

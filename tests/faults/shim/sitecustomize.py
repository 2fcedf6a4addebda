"""Loaded by every Python process of an attempt: kills the main rank inside a chosen thread at the
n-th system call.

FAULT="<thread>:<n>", or "@<file>" with that in it; the calls counted are those that write a
checkpoint or send it to the store.
"""

import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any


def _plant(thread: str, number: int) -> None:
    calls = 0

    def counting(call: Any) -> Any:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            if threading.current_thread().name == thread:
                calls += 1
                if calls == number:
                    os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return wrapper

    for name in ("fsync", "replace", "rename", "mkdir", "unlink", "rmdir"):
        setattr(os, name, counting(getattr(os, name)))
    socket.socket.sendall = counting(socket.socket.sendall)


def _fault() -> str:
    value = os.environ.get("FAULT", "")
    return Path(value[1:]).read_text() if value.startswith("@") else value


if os.environ.get("RANK") == "0" and _fault().startswith(("checkpoint:", "uploads:")):
    _plant(_fault().split(":")[0], int(_fault().split(":")[1]))

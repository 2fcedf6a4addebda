"""Loaded by every Python process of an attempt: kills the main rank inside a chosen thread at the n-th system call.

FAULT="<thread>:<n>"; the calls counted are those that write a checkpoint or send it to the store.
"""

import os
import signal
import socket
import threading
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


if os.environ.get("FAULT") and os.environ.get("RANK") == "0":
    _plant(os.environ["FAULT"].split(":")[0], int(os.environ["FAULT"].split(":")[1]))

"""Loaded by every Python process of a run: counts what its step hashes, reads, writes and fetches.

Each step has a file of its own in the folder BYTES_LOG, a JSON object on each line. Hashed bytes
are counted in every process, also in the ranks, which inherit the step's name. What the kernel
counted of reads and writes is noted once, at the end of the step's own process, to which the kernel
adds what its children did.
"""

import atexit
import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

_LEAST_NOTED = 2**16  # bytes: digests of configurations and sources are left out
_IO = ("rchar", "wchar", "write_bytes")


def _note(document: dict[str, Any]) -> None:
    step = Path(os.environ.get("STREETVISION_STATUS", "run/status.json")).parent.name
    line = json.dumps(document) + "\n"
    with (Path(os.environ["BYTES_LOG"]) / f"{step}.jsonl").open("a") as stream:
        stream.write(line)


class _Counted:
    """A hash that notes how much it was given, once it is asked for its value."""

    def __init__(self, inner: Any, n_bytes: int) -> None:
        self._inner, self._n_bytes, self._lock = inner, n_bytes, threading.Lock()

    def update(self, data: Any) -> None:
        self._inner.update(data)
        with self._lock:
            self._n_bytes += memoryview(data).nbytes

    def _noted(self) -> Any:
        if self._n_bytes >= _LEAST_NOTED:
            _note({"hashed": self._n_bytes})
            self._n_bytes = 0
        return self._inner

    def digest(self) -> bytes:
        return bytes(self._noted().digest())

    def hexdigest(self) -> str:
        return str(self._noted().hexdigest())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _counting(make: Any, data_at: int) -> Any:
    def made(*arguments: Any, **options: Any) -> _Counted:
        given = arguments[data_at] if len(arguments) > data_at else b""
        return _Counted(make(*arguments, **options), memoryview(given).nbytes)

    return made


def _size(folder: str) -> int:
    path = Path(folder)
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def _at_end() -> None:
    words = Path("/proc/self/cmdline").read_text().split("\0")
    if "pipelines.local.step_process" not in words:
        return
    given = json.loads(words[words.index("--executor_input") + 1])
    sizes = {
        name: {
            artifact: sum(_size(entry["uri"]) for entry in entries["artifacts"])
            for artifact, entries in given.get(role, {}).get("artifacts", {}).items()
        }
        for name, role in (("fetched", "inputs"), ("stored", "outputs"))
    }
    counted = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    _note({name: int(counted[name]) for name in _IO} | sizes)


if os.environ.get("BYTES_LOG"):
    hashlib.sha256 = _counting(hashlib.sha256, 0)
    hashlib.new = _counting(hashlib.new, 1)
    atexit.register(_at_end)

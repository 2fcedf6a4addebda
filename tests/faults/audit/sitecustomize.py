"""Loaded by every Python process of a run: writes down what it unpickles, to AUDIT_LOG/<pid>.txt.

Between processes of our own (multiprocessing) pickles travel through pipes; those are told apart by
who reads them.
"""

import os
import pickle
import sys
from pathlib import Path
from typing import Any

_PIPES = ("multiprocessing", "concurrent")


def _note(line: str) -> None:
    with (Path(os.environ["AUDIT_LOG"]) / f"{os.getpid()}.txt").open("a") as stream:
        stream.write(line + "\n")


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "pickle.find_class":
        frame, callers = sys._getframe(1), []
        while frame is not None:
            callers.append(frame.f_globals.get("__name__", ""))
            frame = frame.f_back  # type: ignore[assignment]
        reader = next((name for name in callers if name not in ("pickle", "_pickle")), "")
        kind = "pipe" if reader.startswith(_PIPES) else "FILE"
        _note(f"{kind} {arguments[0]}.{arguments[1]} by {reader}")


def _noting_load(file: Any, *arguments: Any, **options: Any) -> Any:
    _note(f"FILE {getattr(file, 'name', file)}")
    return _load(file, *arguments, **options)


if os.environ.get("AUDIT_LOG"):
    _load = pickle.load
    pickle.load = _noting_load
    sys.addaudithook(_hook)
    _note("process " + " ".join(Path("/proc/self/cmdline").read_text().split("\0")))

"""Processes end with their parent; `tests/macos` shows the same without the kernel's help."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from components.shared.contracts.environment import Variable
from components.shared.contracts.processes import end_with_parent, request_end_with
from pipelines.sources import ROOT

CHILD = """
import time
from components.shared.contracts.processes import end_with_parent
end_with_parent()
print("up", flush=True)
time.sleep(60)
"""
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""


def _ended(pid: int, seconds: float = 5) -> bool:
    ends = time.monotonic() + seconds
    while psutil.pid_exists(pid) and time.monotonic() < ends:
        time.sleep(0.02)
    return not psutil.pid_exists(pid)


@pytest.mark.parametrize("emulated", ["", str(ROOT / "tests/macos")], ids=["here", "macOS"])
def test_a_process_ends_with_its_parent(emulated: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [emulated, str(ROOT)]))},
        stdout=subprocess.PIPE,
    )
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)

    assert _ended(child)


def test_a_process_whose_parent_has_ended_already_ends_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *call: killed.append(call))
    monkeypatch.setattr(
        "components.shared.contracts.processes.ctypes.CDLL",
        lambda _: type("Library", (), {"prctl": staticmethod(lambda *_: 0)}),
    )
    monkeypatch.setenv(Variable.PARENT, str(gone.pid))

    end_with_parent()
    assert request_end_with(gone.pid)
    assert killed == [(os.getpid(), signal.SIGKILL)] * 2

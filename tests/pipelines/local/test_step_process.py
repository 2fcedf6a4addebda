"""Processes of steps end with their run: by its signals, in its threads, and with its death.

The component stands for kfp's executor: it is what kfp.local would start, but says who it is and
waits, so that a test needs no pipeline.
"""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from pipelines.sources import ROOT
from tests.faults.campaign import processes

# A module of kfp's name and of its one public property, that it runs as __main__.
EXECUTOR = """
import pathlib, subprocess, sys, time
folder = pathlib.Path(sys.argv[1])
rank = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", str(folder)])
try:
    print("step is up", flush=True)
    time.sleep(60)
except BaseException as error:
    (folder / "status").write_text(repr(error))
    if "stubborn" in sys.argv:
        time.sleep(60)
    raise
finally:
    rank.kill()
    print("cleaned up", flush=True)
"""
RUN = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
from components.shared.contracts.interrupts import SignalReceivedError, interruptible
from pipelines.local.step_process import StepProcesses

def step():
    return steps.run(sys.argv[2:], os.environ, ())

steps = StepProcesses()
with interruptible(), steps.ended_by_signals():
    try:
        if sys.argv[1] == "threads":
            with ThreadPoolExecutor(1) as pool:  # as kfp.local waits for a loop
                list(pool.map(lambda _: step(), range(3)))
        else:
            step()
    except SignalReceivedError as received:
        print("run:", received, steps.interrupted)
        sys.exit(received.exit_code)
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of a run whose kfp.dsl.executor_main is EXECUTOR."""
    package = tmp_path / "path/kfp/dsl"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    (package / "executor_main.py").write_text(EXECUTOR)
    path = os.pathsep.join([str(tmp_path / "path"), str(ROOT)])
    return os.environ | {"PYTHONPATH": path}


def _start(
    environment: dict[str, str], folder: Path, kind: str, *words: str
) -> "subprocess.Popen[str]":
    folder.mkdir()
    run = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(RUN), kind, str(folder), *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert run.stdout is not None
    assert run.stdout.readline() == "step is up\n"
    return run


def _await_end_of_all(folder: Path, seconds: float) -> None:
    ends = time.monotonic() + seconds
    while processes(str(folder)) and time.monotonic() < ends:
        time.sleep(0.02)
    assert not processes(str(folder))


@pytest.mark.parametrize("kind", ["main thread", "threads"])
@pytest.mark.parametrize(
    ("name", "whole_group"), [("SIGINT", True), ("SIGINT", False), ("SIGTERM", False)]
)
def test_a_signal_to_the_run_ends_its_step_which_cleans_up(
    environment: dict[str, str], tmp_path: Path, name: str, whole_group: bool, kind: str
) -> None:
    folder, number = tmp_path / "work", getattr(signal, name)
    with _start(environment, folder, kind) as run:
        (os.killpg if whole_group else os.kill)(run.pid, number)
        printed, _ = run.communicate(timeout=5)

    assert printed == f"run: interrupted by {name} True\n"
    assert run.returncode == 128 + number
    assert (folder / "status").read_text() == "SignalReceivedError(15)"
    _await_end_of_all(folder, 0)


def test_a_step_that_does_not_end_is_killed_with_its_processes(
    environment: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "work"
    with _start(environment, folder, "main thread", "stubborn") as run:
        started = time.monotonic()
        run.send_signal(signal.SIGTERM)
        run.communicate(timeout=5)

    assert time.monotonic() - started < 5
    assert run.returncode == 143
    _await_end_of_all(folder, 1)


@pytest.mark.parametrize("emulated", ["", str(ROOT / "tests/macos")], ids=["here", "macOS"])
def test_a_step_ends_with_a_run_that_is_killed(
    environment: dict[str, str], tmp_path: Path, emulated: str
) -> None:
    folder = tmp_path / "work"
    environment["PYTHONPATH"] = os.pathsep.join([emulated, environment["PYTHONPATH"]])
    with _start(environment, folder, "main thread") as run:
        run.kill()

    step = f"-m pipelines.local.step_process {folder}"
    ends = time.monotonic() + 5
    while processes(step) and time.monotonic() < ends:
        time.sleep(0.02)
    assert not processes(step)
    for pid in processes(str(folder)):  # this step's child has no end_with_parent, as ranks have
        os.kill(pid, signal.SIGKILL)

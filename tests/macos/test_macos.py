"""What a macOS laptop lacks is not missed: emulated here, where no macOS can be run.

`sitecustomize.py` of this folder takes Linux's own functions away from every process. Not tested:
macOS's libraries (gloo, Pillow's wheels), its file systems, and its GNU make 3.81; the Makefile's
commands are compared with what BSD's tools know.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.shared.training.launch.heartbeat import Heartbeat
from pipelines.sources import ROOT
from tests.components.conftest import write_backbone, write_source
from tests.faults.campaign import processes

EMULATED = str(Path(__file__).parent)
LAUNCH = (
    "import pathlib, sys; from components.shared.training.launch.torchrun import launch; "
    "launch('tests.components.shared.training.toy', pathlib.Path(sys.argv[1]), n_processes=1,"
    " hang_seconds=2.0)"
)


@pytest.fixture
def macos() -> dict[str, str]:
    """The environment of processes that run as on macOS."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([EMULATED, str(ROOT)])}


def test_what_is_taken_away_is_gone(macos: dict[str, str]) -> None:
    code = (
        "import ctypes, os, select; print([hasattr(os, 'sched_getaffinity'),"
        " hasattr(select, 'epoll'), hasattr(ctypes.CDLL(None), 'prctl'), hasattr(os, 'fork')])"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], env=macos, capture_output=True, text=True, check=True
    )
    assert json.loads(finished.stdout.lower()) == [False, False, False, True]


def _job(directory: Path, **job: object) -> str:
    file = directory / "job.json"
    file.write_text(json.dumps({"changes": {"epochs": 50}} | job), encoding="utf-8")
    return str(file)


def test_a_rank_that_hangs_is_named_and_ended(macos: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", LAUNCH, _job(tmp_path, fault="hang")]
    finished = subprocess.run(command, env=macos, capture_output=True, text=True, check=False)
    assert "rank 0 hangs in step 3: no sign of life" in finished.stderr
    assert not processes(str(tmp_path))


def test_no_rank_outlives_a_killed_step(macos: dict[str, str], tmp_path: Path) -> None:
    job = _job(tmp_path, seconds=0.5)
    step = subprocess.Popen([sys.executable, "-c", LAUNCH, job], env=macos)
    try:
        ends = time.monotonic() + 60
        while not (
            (tmp_path / "heartbeat").is_file()
            and Heartbeat(tmp_path / "heartbeat").last_step(0) == "in step 3"
        ):
            assert step.poll() is None
            assert time.monotonic() < ends
            time.sleep(0.05)
    finally:
        step.send_signal(signal.SIGKILL)
        step.wait()

    ends = time.monotonic() + 10
    while processes(str(tmp_path)) and time.monotonic() < ends:
        time.sleep(0.05)
    assert not processes(str(tmp_path))


@pytest.mark.slow
def test_the_whole_pipeline_runs(macos: dict[str, str], tmp_path: Path) -> None:
    write_source(tmp_path / "data")
    write_backbone(tmp_path / "backbone")
    values = {
        "data": tmp_path / "data",
        "backbone": tmp_path / "backbone",
        "image_size": 56,
        "epochs": 1,
        "min_per_class": 2,
        "n_bootstrap": 100,
    }
    parameters = [item for name, value in values.items() for item in ("--param", f"{name}={value}")]
    command = [sys.executable, "-m", "pipelines", "run", "--output", str(tmp_path / "runs")]
    finished = subprocess.run(
        [*command, *parameters], env=macos, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert list((tmp_path / "runs").rglob("bundle.json"))


# Options that GNU's tools have and BSD's have not, or mean something else there.
GNU_ONLY = (
    r"sed\b[^|;]*\\t|sed -i|sed\b[^|;]* -r\b|readlink -f|\brealpath\b|sha256sum|md5sum|grep -\w*P"
    r"|\bnproc\b|date -d|stat -c|xargs\b[^|;]* -d\b|\btac\b|\btimeout\b|cp\b[^|;]* --|\bmktemp -p"
    r"|base64 -w|sort -V|find\b[^|;]* -printf"
)


@pytest.mark.parametrize("file", ["Makefile", ".ci/run", "images/engine.sh"])
def test_scripts_call_tools_as_bsd_has_them(file: str) -> None:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if re.search(GNU_ONLY, line)]


def test_the_makefile_uses_nothing_newer_than_make_3_81() -> None:
    """Functions and directives of later releases, from GNU make's NEWS."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    later = r"\.ONESHELL|\.SHELLFLAGS|\$\((?:file|guile|let|intcmp) |^undefine|^private|!=|::=|&:"
    assert not re.findall(later, text, flags=re.MULTILINE)

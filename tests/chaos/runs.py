"""Runs that are disturbed: their processes, and what they have left when they ended."""

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from pipelines.sources import ROOT

END_SECONDS = 5.0  # from a signal to the end of all
LONGEST_SECONDS = 1800.0  # of a run that is not interrupted, on a busy machine
_MARK = "STREETVISION_CHAOS"
_CODES = (1, 42)
_TORCHS_CACHE = "torchinductor_*"  # an empty folder, one for all processes of a user
# Of kfp.local's log; a typed error has one line, at the end.
_FORBIDDEN = ("Traceback (most recent call last)", "unexpected ", "Segmentation", "Bus error")


@dataclass
class Run:
    """One `python -m pipelines run`, in a session of its own.

    output: the folder of runs. log: what it printed. temporary: its TMPDIR.
    """

    arguments: list[str]
    output: Path
    log: Path
    temporary: Path
    process: "subprocess.Popen[bytes]" = field(init=False)
    digest: str = ""

    def start(self) -> "Run":
        """Start it; returns itself."""
        self.temporary.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {
            _MARK: str(self.log),
            "TMPDIR": str(self.temporary),
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        command = [sys.executable, "-m", "pipelines", "run", "--output", str(self.output)]
        with self.log.open("wb") as stream:
            self.process = subprocess.Popen(
                [*command, *self.arguments],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        return self

    def processes(self) -> list[psutil.Process]:
        """Return the living processes of this run, and its store's."""
        return [process for process in psutil.process_iter() if self._owns(process)]

    def _owns(self, process: psutil.Process) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            marked = process.environ().get(_MARK) == str(self.log)
            return marked or f"-dir={self.output}/store/" in " ".join(process.cmdline())
        except psutil.Error:
            return False

    def wait(self, seconds: float) -> bool:
        """Wait for the end of the command; return whether it came in that time."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def printed(self) -> str:
        """Return what it printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def keep_digest(self) -> None:
        """Take the digest of the outputs, if there are any, before they are gone."""
        if self.process.returncode == 0:
            self.digest = outputs_digest(self)

    def last_line(self) -> str:
        """Return the last line that it printed."""
        lines = self.printed().strip().splitlines()
        return lines[-1] if lines else ""


def problems(run: Run, sent: signal.Signals | None = None) -> list[str]:
    """Return what is wrong with how a run ended, and with what it left; nothing on success.

    sent: a signal that the command itself was sent.
    """
    code, printed, found = run.process.returncode, run.printed(), []
    found += [f"printed {text!r}" for text in _FORBIDDEN if text in printed]

    if code == 0:
        if sent is not None and "bundle: " not in printed:
            found.append("exit code 0 without a bundle")
    elif sent is not None and code == -sent and (sent == signal.SIGKILL or not printed):
        pass  # by SIGKILL, or in the moment before the command handles signals
    elif sent is not None and code == 128 + sent:
        if run.last_line() != f"error: interrupted by {sent.name}":
            found.append(f"the last line is {run.last_line()!r}")
    elif code not in _CODES:
        found.append(f"exit code {code}")
    elif not run.last_line().startswith("error: "):
        found.append(f"the last line is {run.last_line()!r}")

    found += _left(run)
    killed = sent == signal.SIGKILL or "killed by SIGKILL" in printed
    rest = [path.name for path in run.temporary.iterdir() if not path.match(_TORCHS_CACHE)]
    if rest and not killed:
        found.append(f"left in TMPDIR: {', '.join(sorted(rest))}")

    return found


def _left(run: Run) -> list[str]:
    """Return the processes that outlive the command, with their ports; they are killed."""
    ends = time.monotonic() + END_SECONDS
    while (left := run.processes()) and time.monotonic() < ends:
        time.sleep(0.05)

    described = []
    for process in left:
        with contextlib.suppress(psutil.Error):
            ports = [c.laddr.port for c in process.connections("inet") if c.status == "LISTEN"]
            command = " ".join(process.cmdline())[:120]
            described.append(f"process {process.pid} is left, ports {ports}: {command}")
            process.kill()

    return described


def outputs_digest(run: Run) -> str:
    """Return a digest of all bytes of the bundle and of the evaluation that a run printed."""
    places = dict(line.split(": ", 1) for line in run.printed().splitlines()[-4:] if ": " in line)
    bundle = Path(places["bundle"])
    digest = hashlib.sha256()
    for folder in (bundle, Path(places["report"]).parent):
        for file in _files(folder if folder.is_absolute() else ROOT / folder):
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def _files(folder: Path) -> Iterator[Path]:
    yield from sorted(file for file in folder.rglob("*") if file.is_file())

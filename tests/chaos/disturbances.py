"""What happens to a run: signals, a full disk, faults of the store, a second run, damaged files.

Each function starts a run in `bench.output`, disturbs it, and returns what to call it and the runs
that have ended. All choices come from the given generator.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.chaos.runs import LONGEST_SECONDS, Run

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)
DISK_BYTES = (100_000, 16_000_000)  # a whole run takes about 12 MB
ENOUGH_BYTES = 400_000_000
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Ended:
    """A run that has ended. sent: a signal to the command itself. seconds: from there to the end.

    disk: a file system of its own, which is gone by now.
    """

    run: Run
    sent: signal.Signals | None = None
    seconds: float = 0.0


@dataclass
class Bench:
    """Where runs are made.

    work: the folder of everything. options: of each run. duration: seconds of an undisturbed run.
    """

    work: Path
    options: list[str]
    duration: float = 60.0
    n_runs: int = 0
    last: list[Run] = field(default_factory=list)

    def output(self, store: str) -> Path:
        """Return the folder of runs with that kind of store."""
        return self.work / f"runs-{store}"

    def start(self, store: str = "none", output: Path | None = None) -> Run:
        """Start a run."""
        self.n_runs += 1
        options = [*self.options, "--store", store]
        log = self.work / f"logs/{self.n_runs:04d}.log"
        temporary = self.work / f"tmp/{self.n_runs:04d}"
        run = Run(options, output or self.output(store), log, temporary).start()
        self.last = [*self.last[-1:], run]
        return run

    @contextlib.contextmanager
    def runs_ended(self) -> Iterator[None]:
        """Kill what is still running at the end of the context."""
        try:
            yield
        finally:
            for run in self.last:
                run.process.kill()


Disturbance = Callable[[Bench, random.Random], tuple[str, list[Ended]]]


def by_signal(bench: Bench, rng: random.Random) -> tuple[str, list[Ended]]:
    """Send a signal to the command, its process group, its step, or a training process."""
    number, target = rng.choice(SIGNALS), rng.choice(("command", "group", "step", "rank"))
    run = bench.start(rng.choice(("none", "none", "embedded")))
    _sleep(run, rng.uniform(0, bench.duration))

    process = _target(run, target)
    if target not in ("command", "group") and process is not None:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)
        run.wait(LONGEST_SECONDS)
        return f"{number.name} to the {target}", [Ended(run)]

    if run.process.poll() is not None:
        return "no disturbance", [Ended(run)]

    began = time.monotonic()
    (os.killpg if target == "group" else os.kill)(run.process.pid, number)
    run.wait(LONGEST_SECONDS)
    while run.processes() and time.monotonic() - began < LONGEST_SECONDS:
        time.sleep(_POLL_SECONDS)
    name = f"{number.name} to the {'group' if target == 'group' else 'command'}"

    return name, [Ended(run, number, time.monotonic() - began)]


def by_full_disk(bench: Bench, rng: random.Random) -> tuple[str, list[Ended]]:
    """Run on a disk that is too small, and then, with more space, again."""
    folder = bench.work / "disk"
    size = rng.randint(*DISK_BYTES)
    with _disk(folder, size) as mounted:
        if not mounted:
            return "full disk: not tried, mount is not allowed here", []

        run = bench.start(output=folder / "runs")
        run.wait(LONGEST_SECONDS)
        ended = [Ended(run)]
        if rng.random() < 0.5:
            subprocess.run(["mount", "-o", f"remount,size={ENOUGH_BYTES}", folder], check=True)
            again = bench.start(output=folder / "runs")
            again.wait(LONGEST_SECONDS)
            ended.append(Ended(again))

        for end in ended:
            end.run.keep_digest()

    return "full disk", ended


def by_store(bench: Bench, rng: random.Random) -> tuple[str, list[Ended]]:
    """Kill, end or stop for a while the store's server, or kill what watches it."""
    what = rng.choice(("SIGKILL", "SIGTERM", "stopped", "watcher"))
    run = bench.start("embedded")
    _sleep(run, rng.uniform(0, bench.duration))

    servers = [process for process in run.processes() if _is(process, "weed mini")]
    watchers = [process for process in run.processes() if _is(process, "server_process")]
    for process in watchers if what == "watcher" else servers:
        with contextlib.suppress(psutil.Error):
            if what == "stopped":
                process.suspend()
                _sleep(run, rng.uniform(1, 20))
                process.resume()
            else:
                process.send_signal(signal.SIGTERM if what == "SIGTERM" else signal.SIGKILL)
    run.wait(LONGEST_SECONDS)

    return f"store: {what}", [Ended(run)]


def by_second_run(bench: Bench, rng: random.Random) -> tuple[str, list[Ended]]:
    """Start another run in the same folder."""
    store = rng.choice(("none", "none", "embedded"))
    first = bench.start(store)
    _sleep(first, rng.uniform(0, bench.duration / 2))
    second = bench.start(store)
    for run in (first, second):
        run.wait(LONGEST_SECONDS)

    return f"second run, store {store}", [Ended(first), Ended(second)]


def by_damage(bench: Bench, rng: random.Random) -> tuple[str, list[Ended]]:
    """Damage a file of an earlier run: of an artifact, the cache, a checkpoint, a lineage."""
    output = bench.output("none")
    files = sorted(file for file in output.rglob("*") if file.is_file())
    if not files:
        return "no disturbance", [_undisturbed(bench)]

    file, how = rng.choice(files), rng.choice(tuple(_DAMAGES))
    _DAMAGES[how](file, rng)
    print(f"  {how}: {file.relative_to(output)}", flush=True)

    return f"damage: {how}", [_undisturbed(bench)]


def _undisturbed(bench: Bench) -> Ended:
    run = bench.start()
    run.wait(LONGEST_SECONDS)
    return Ended(run)


def _flip(file: Path, rng: random.Random) -> None:
    data = bytearray(file.read_bytes() or b"\0")
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    file.write_bytes(data)


def _truncate(file: Path, rng: random.Random) -> None:
    os.truncate(file, rng.randrange(file.stat().st_size + 1))


def _replace_by_folder(file: Path, _: random.Random) -> None:
    file.unlink()
    file.mkdir()


_DAMAGES: dict[str, Callable[[Path, random.Random], object]] = {
    "one bit": _flip,
    "cut off": _truncate,
    "emptied": lambda file, _: file.write_bytes(b""),
    "removed": lambda file, _: file.unlink(),
    "longer": lambda file, rng: file.write_bytes(file.read_bytes() + rng.randbytes(100)),
    "a folder": _replace_by_folder,
    "folder removed": lambda file, _: shutil.rmtree(file.parent),
}


def _target(run: Run, name: str) -> psutil.Process | None:
    """Return a step's process, or a rank's, if one is running."""
    text = {"step": "pipelines.local.step_process", "rank": "--config"}.get(name)
    found = [process for process in run.processes() if text and _is(process, text)]
    return found[-1] if found else None


def _is(process: psutil.Process, text: str) -> bool:
    try:
        return text in " ".join(process.cmdline())
    except psutil.Error:
        return False


def _sleep(run: Run, seconds: float) -> None:
    run.wait(seconds)


@contextlib.contextmanager
def _disk(folder: Path, size: int) -> Iterator[bool]:
    """Mount a file system of so many bytes; yields whether that is allowed."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


ALL: tuple[tuple[Disturbance, int], ...] = (
    (by_signal, 4),
    (by_full_disk, 2),
    (by_store, 2),
    (by_second_run, 1),
    (by_damage, 3),
)

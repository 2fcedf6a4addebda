"""Kill a training again and again, and compare what it ends with to an undisturbed one's.

`run` loses pods: every kill ends the step, and the next attempt is another process, on an empty
machine where `wiped`. `run_in_one_pod` kills what one step has started, and the step goes on.
Targets and moments are drawn: any process (a rank, torchrun; of a lost pod also the step) at any
time, or the main rank inside the thread that writes checkpoints or the one that uploads them.
"""

import contextlib
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import psutil

from components.ingest_dataset.config import IngestConfig
from components.ingest_dataset.step import run as ingest_dataset
from components.shared.contracts.artifacts import sha256_file
from components.shared.contracts.environment import Variable
from components.shared.storage import Store, StoreSettings
from components.shared.training.launch import agent as torchrun
from components.shared.training.launch.heartbeat import Heartbeat
from components.shared.training.session import restarts
from components.split_dataset.config import SplitConfig
from components.split_dataset.step import run as split_dataset
from components.train_baseline.config import TrainBaselineConfig
from components.train_baseline.step import run as train_baseline
from tests.components.conftest import write_backbone_artifact, write_source

SHIM = Path(__file__).parent / "shim"
_ATTEMPT_SECONDS = 300.0
_CALLS = {"checkpoint": 12, "uploads": 12}  # of one checkpoint, counted by the shim


@dataclass
class Campaign:
    """One training and its kills. `wiped`: every attempt begins on an empty machine and has the
    store alone.
    """

    name: str
    config: dict[str, object]
    kills: int
    seed: int = 0
    stored: bool = False
    wiped: bool = False
    step: str = "train_baseline"
    inputs: tuple[str, ...] = ("dataset", "splits", "backbone")
    outputs: tuple[str, ...] = ("checkpoint", "val_select_logits")
    delivered: list[str] = field(default_factory=list)

    @property
    def work(self) -> str:
        """Name of the step's scratch directory, which is part of the command line of every process
        of an attempt.
        """
        return f".{self.outputs[0]}.work"


def prepare(root: Path) -> None:
    """Data, splits, a backbone and a checkpoint for all campaigns."""
    write_source(root / "source", 120)
    write_backbone_artifact(root / "backbone")
    ingest_dataset(IngestConfig(data=str(root / "source"), image_size=28), dataset=root / "dataset")
    split_dataset(
        SplitConfig(min_per_class=2),
        **{name: root / name for name in ("dataset", "splits", "train_images")},
    )
    shutil.copytree(root / "backbone", root / "pretrained")  # what pre-training calls it
    config = TrainBaselineConfig(epochs=2, n_processes=1)
    outputs = {name: root / name for name in ("checkpoint", "val_select_logits")}
    inputs = {name: root / name for name in ("dataset", "splits", "backbone")}
    train_baseline(config, **inputs, **outputs)


def run(campaign: Campaign, root: Path, settings: StoreSettings | None = None) -> None:
    """Undisturbed first, then killed until all kills are delivered; raises AssertionError where any
    byte differs.
    """
    environment = _store(campaign, settings)
    started = time.monotonic()
    assert attempt(campaign, root, "undisturbed", {}) is None
    usual = time.monotonic() - started
    expected = digests(campaign, root / campaign.name / "undisturbed")
    chance = random.Random(campaign.seed)
    finished = 0
    while len(campaign.delivered) < campaign.kills or not finished:
        fault = _draw(chance, campaign, usual) if len(campaign.delivered) < campaign.kills else ""
        killed = attempt(campaign, root, f"killed{finished}", environment, fault, chance)
        if killed is not None:
            campaign.delivered.append(killed)
            continue
        assert digests(campaign, root / campaign.name / f"killed{finished}") == expected
        _assert_clean(campaign, root, settings)
        finished += 1


def run_in_one_pod(
    campaign: Campaign, root: Path, settings: StoreSettings | None = None
) -> list[str]:
    """Undisturbed first, then killed `campaign.kills` times in one run of the step; the moments of
    the kills.

    Raises AssertionError where any byte differs, or where a kill came too late.
    """
    chance = random.Random(campaign.seed)
    started = time.monotonic()
    with _Killer(_output(campaign, root, "whole") / campaign.work, [], chance) as watcher:
        _step(campaign, root, "whole", {})
    usual = time.monotonic() - started
    expected = digests(campaign, _output(campaign, root, "whole"))

    moments = _moments(chance, campaign, watcher.last_step, usual)
    output = _output(campaign, root, "killed0")
    with _Killer(output / campaign.work, moments, chance) as killer:
        _step(campaign, root, "killed0", _store(campaign, settings) | killer.environment)
    campaign.delivered += killer.delivered
    assert killer.delivered == moments, f"delivered {killer.delivered} of {moments}"
    assert digests(campaign, output) == expected
    _assert_gone(campaign, output)
    _assert_clean(campaign, root, settings)
    return moments


def _store(campaign: Campaign, settings: StoreSettings | None) -> dict[str, str]:
    if not campaign.stored:
        return {}
    assert settings is not None
    Store(settings).make_bucket("faults")
    return settings.to_environment() | {Variable.CHECKPOINT_STORE: "s3://faults/trainings"}


def _output(campaign: Campaign, root: Path, folder: str) -> Path:
    return root / campaign.name / folder


def _step(campaign: Campaign, root: Path, folder: str, environment: dict[str, str]) -> None:
    """The step in this process, whose processes are started again after hardly a wait."""
    run = importlib.import_module(f"components.{campaign.step}.step").run
    config = typing.get_type_hints(run)["config"].from_mapping(campaign.config)
    paths = {name: root / name for name in campaign.inputs}
    paths |= {name: _output(campaign, root, folder) / name for name in campaign.outputs}
    place = root / campaign.name / "places" / folder
    variables = environment | {Variable.CHECKPOINTS: str(place), "OMP_NUM_THREADS": "1"}
    with (
        mock.patch.dict(os.environ, variables),
        mock.patch.object(restarts, "_FIRST_WAIT_SECONDS", 0.1),
    ):
        run(config, **paths)


def _moments(chance: random.Random, campaign: Campaign, last_step: int, usual: float) -> list[str]:
    """One for each start: "seconds:<after it began>", "step:<n>", or "<thread>:<n-th call>".

    In the first seconds nothing is trained yet, and in the last step a rank may be killed in what
    follows training.
    """
    if last_step < 0:  # nothing is trained
        # Well before the end, which comes sooner on a machine that does nothing else.
        return [f"seconds:{chance.uniform(0, 0.4) * usual:.2f}" for _ in range(campaign.kills)]
    threads = ["checkpoint", "uploads"] if campaign.stored else ["checkpoint"]
    chosen = [
        "seconds:1",
        *(f"{thread}:{chance.randint(1, 2 * _CALLS[thread])}" for thread in threads),
    ]
    chosen = chosen[: max(0, campaign.kills - 1)]
    steps = sorted(
        chance.randint(last_step // 4, last_step) for _ in range(campaign.kills - len(chosen) - 1)
    )
    return [*chosen, *(f"step:{step}" for step in (*steps, last_step))]


class _Killer:
    """Kills one process in each start of a step's processes, at the moments given; `last_step`: the
    latest seen.
    """

    def __init__(self, work: Path, moments: list[str], chance: random.Random) -> None:
        self.last_step = -1
        self.delivered: list[str] = []
        self._work, self._moments, self._chance = work, moments, chance
        self._fault = work.with_name("fault")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def environment(self) -> dict[str, str]:
        """What has the main rank look for the moments that are inside its threads."""
        path = f"{SHIM}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        return {"FAULT": f"@{self._fault}", "PYTHONPATH": path}

    def __enter__(self) -> "_Killer":
        self._work.parent.mkdir(parents=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._fault.unlink(missing_ok=True)

    def _run(self) -> None:
        agent = 0
        for moment in [*self._moments, ""]:
            self._fault.write_text(moment)
            agent = self._next_agent(agent)
            kind, _, value = moment.partition(":")
            if self._until(kind, value, agent) and (kind in _CALLS or self._kill()):
                self.delivered.append(moment)

    def _kill(self) -> bool:
        pids = sorted(_torchrun(self._work))
        with contextlib.suppress(ProcessLookupError):
            if pids:
                os.kill(self._chance.choice(pids), signal.SIGKILL)
                return True
        return False

    def _next_agent(self, previous: int) -> int:
        while not self._ended.wait(0.02):
            agents = [
                pid
                for pid, command in _torchrun(self._work).items()
                if torchrun.__name__ in command
            ]
            if agents and agents[0] != previous:
                return agents[0]
        return 0

    def _until(self, kind: str, value: str, agent: int) -> bool:
        """Wait for the moment; whether it came before the step ended."""
        began = time.monotonic()
        if kind == "step":
            self.last_step = -1
        while not self._ended.wait(0.01):
            self._look()
            if kind == "seconds" and time.monotonic() - began >= float(value):
                return True
            if kind == "step" and self.last_step >= int(value):
                return True
            if kind in _CALLS and not psutil.pid_exists(agent):
                return True
        return False

    def _look(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # not there, or being made anew
            words = Heartbeat(self._work / "heartbeat").last_step(0).split()
            self.last_step = int(words[-1]) if words[-1].isdigit() else -1


def _torchrun(work: Path) -> dict[int, str]:
    """torchrun and its ranks by process id, with their command lines."""
    return {pid: command for pid, command in _command_lines(str(work)) if "--config" in command}


def digests(campaign: Campaign, folder: Path) -> dict[str, str]:
    """SHA-256 of every file of the outputs."""
    files = sorted(
        file for name in campaign.outputs for file in (folder / name).rglob("*") if file.is_file()
    )
    assert files
    return {file.relative_to(folder).as_posix(): sha256_file(file) for file in files}


def _draw(chance: random.Random, campaign: Campaign, usual: float) -> str:
    """ "<thread>:<n-th call>" or "<seconds>"."""
    threads = ["checkpoint", "uploads"] if campaign.stored else ["checkpoint"]
    if chance.random() < 0.5:
        thread = chance.choice(threads)
        return f"{thread}:{chance.randint(1, 4 * _CALLS[thread])}"
    return f"{chance.uniform(0.1, 0.8) * usual:.3f}"


def attempt(
    campaign: Campaign,
    root: Path,
    folder: str,
    environment: dict[str, str],
    fault: str = "",
    chance: random.Random | None = None,
) -> str | None:
    """One attempt; what was killed, or None where it ended by itself, successfully."""
    output = root / campaign.name / folder
    output.mkdir(parents=True, exist_ok=True)
    place = root / campaign.name / "places" / folder
    if campaign.wiped:
        shutil.rmtree(place, ignore_errors=True)
    paths = {name: str(output / name) for name in campaign.outputs}
    paths |= {name: str(root / name) for name in campaign.inputs}
    job = output / "job.json"
    job.write_text(json.dumps({"config": campaign.config, "paths": paths}))
    variables = (
        os.environ | environment | {Variable.CHECKPOINTS: str(place), "OMP_NUM_THREADS": "1"}
    )
    if ":" in fault:
        variables |= {
            "FAULT": fault,
            "PYTHONPATH": f"{SHIM}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        }
    with (output / "log.txt").open("ab") as log:
        command = [sys.executable, "-m", f"components.{campaign.step}.step", str(job)]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=variables)
        try:
            killed = (
                _kill_at(float(fault), process, str(output / campaign.work), chance)
                if fault and ":" not in fault
                else None
            )
            process.wait(_ATTEMPT_SECONDS)
        finally:
            process.kill()
            process.wait()
    _assert_gone(campaign, output)
    if killed is not None:
        return killed
    if ":" in fault and process.returncode == 1:
        assert "was killed by SIGKILL" in (output / "log.txt").read_text()
        return fault
    assert process.returncode == 0, (output / "log.txt").read_text()[-3000:]
    return None


def _kill_at(
    seconds: float, process: "subprocess.Popen[bytes]", marker: str, chance: random.Random | None
) -> str | None:
    """SIGKILL one process of the attempt after so many seconds; None where it had ended by then."""
    try:
        process.wait(seconds)
        return None
    except subprocess.TimeoutExpired:
        pass
    pids = [process.pid, *processes(marker)]
    pid = (chance or random.Random(0)).choice(pids)
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return None
    process.wait(_ATTEMPT_SECONDS)
    # The last moments may belong to a process that had done its work already.
    return (
        f"process {pids.index(pid)} of {len(pids)} after {seconds:.1f} s"
        if process.returncode != 0
        else None
    )


def processes(marker: str) -> list[int]:
    """Processes whose command line has `marker`, sorted."""
    return sorted(pid for pid, _ in _command_lines(marker))


def _command_lines(marker: str) -> Iterator[tuple[int, str]]:
    for process in psutil.process_iter(["cmdline"]):
        command = " ".join(process.info["cmdline"] or [])
        if marker in command:
            yield process.pid, command


def _assert_gone(campaign: Campaign, output: Path) -> None:
    ends = time.monotonic() + 10
    while processes(str(output / campaign.work)):
        assert time.monotonic() < ends, "a process outlived its attempt"
        time.sleep(0.05)


def _assert_clean(campaign: Campaign, root: Path, settings: StoreSettings | None) -> None:
    """Nothing is left after success: no scratch beside the outputs, no checkpoint, no object."""
    last = sorted((root / campaign.name).glob("killed*"))[-1]
    reports = {"job.json", "log.txt", "status.json"}  # of an attempt in a process of its own
    assert {entry.name for entry in last.iterdir()} - reports == set(campaign.outputs)
    assert not list((root / campaign.name).glob("places/*/*"))
    if campaign.stored and settings is not None:
        left = Store(settings).list("faults")
        assert not left, f"left in the store: {left}"

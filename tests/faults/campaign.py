"""Kill a training again and again, and compare what it ends with to an undisturbed one's.

Targets and moments are drawn: any process of the attempt (a rank, torchrun, the step) at any time, or the main rank
inside the thread that writes checkpoints or the one that uploads them.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from components.ingest_dataset.config import IngestConfig
from components.ingest_dataset.step import run as ingest_dataset
from components.shared.artifacts import sha256_file
from components.shared.store import Store, StoreSettings
from components.shared.training.mirror import STORE_VARIABLE
from components.shared.training.resumable import PLACE_VARIABLE
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
    """One training and its kills. `wiped`: every attempt begins on an empty machine and has the store alone."""

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
        """Name of the step's scratch directory, which is part of the command line of every process of an attempt."""
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
    """Undisturbed first, then killed until all kills are delivered; raises AssertionError where any byte differs."""
    environment = {}
    if campaign.stored:
        assert settings is not None
        Store(settings).make_bucket("faults")
        environment = settings.to_environment() | {STORE_VARIABLE: "s3://faults/trainings"}
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


def digests(campaign: Campaign, folder: Path) -> dict[str, str]:
    """SHA-256 of every file of the outputs."""
    files = sorted(file for name in campaign.outputs for file in (folder / name).rglob("*") if file.is_file())
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
    variables = os.environ | environment | {PLACE_VARIABLE: str(place), "OMP_NUM_THREADS": "1"}
    if ":" in fault:
        variables |= {"FAULT": fault, "PYTHONPATH": f"{SHIM}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
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
    return f"process {pids.index(pid)} of {len(pids)} after {seconds:.1f} s" if process.returncode != 0 else None


def processes(marker: str) -> list[int]:
    """Processes whose command line has `marker`, sorted."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and marker in (entry / "cmdline").read_text():
                found.append(int(entry.name))
        except OSError:
            continue
    return sorted(found)


def _assert_gone(campaign: Campaign, output: Path) -> None:
    ends = time.monotonic() + 10
    while processes(str(output / campaign.work)):
        assert time.monotonic() < ends, "a process outlived its attempt"
        time.sleep(0.05)


def _assert_clean(campaign: Campaign, root: Path, settings: StoreSettings | None) -> None:
    """Nothing is left after success: no scratch beside the outputs, no checkpoint, no object."""
    last = sorted((root / campaign.name).glob("killed*"))[-1]
    assert sorted(entry.name for entry in last.iterdir()) == sorted(
        [*campaign.outputs, "job.json", "log.txt", "status.json"]
    )
    assert not list((root / campaign.name).glob("places/*/*"))
    if campaign.stored and settings is not None:
        left = Store(settings).list("faults")
        assert not left, f"left in the store: {left}"

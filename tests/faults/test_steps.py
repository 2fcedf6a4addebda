"""Every light step, run twice or stopped anywhere and run again, writes the same bytes, and nothing half is accepted.

STOPS per step: 4 by default, 25 by `make test-faults`. (Training is killed in test_kills.)
"""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.evaluate.config import EvaluateConfig
from components.evaluate.step import run as evaluate
from components.export_bundle.config import ExportConfig
from components.export_bundle.step import run as export_bundle
from components.fit_threshold.config import FitThresholdConfig
from components.fit_threshold.step import run as fit_threshold
from components.ingest_dataset.config import IngestConfig
from components.ingest_dataset.step import run as ingest_dataset
from components.shared.artifacts import sha256_file, verify_dir
from components.split_dataset.config import SplitConfig
from components.split_dataset.step import run as split_dataset
from tests.components.conftest import write_source
from tests.faults.torn import power_cut
from tests.golden.make import FOLDER, KINDS

STOPS = 25 if os.environ.get("KILLS") else 4
_NEVER = 10**9


def _ingest(source: Path, **paths: Path) -> None:
    ingest_dataset(IngestConfig(data=str(source), image_size=28), **paths)


def _reading(run: Callable[..., Any], config: Any, *inputs: str) -> Callable[..., Any]:
    return lambda source, **paths: run(config, **{name: FOLDER / name for name in inputs}, **paths)


# Step -> (how it is run, its outputs).
STEPS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "ingest_dataset": (_ingest, ("dataset",)),
    "split_dataset": (_reading(split_dataset, SplitConfig(min_per_class=2), "dataset"), ("splits",)),
    "fit_threshold": (
        _reading(fit_threshold, FitThresholdConfig(n_bootstrap=100), "val_calib_logits"),
        ("policy",),
    ),
    "evaluate": (
        _reading(evaluate, EvaluateConfig(n_bootstrap=100), "val_test_logits", "policy", "dataset"),
        ("evaluation", "report"),
    ),
    "export_bundle": (
        _reading(export_bundle, ExportConfig(), "checkpoint", "policy", "evaluation", "dataset"),
        ("bundle",),
    ),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("steps") / "source"
    write_source(folder, 60)
    return folder


def _digests(task: Path) -> dict[str, str]:
    files = sorted(file for file in task.rglob("*") if file.is_file())
    return {file.relative_to(task).as_posix(): sha256_file(file) for file in files}


@pytest.mark.parametrize("step", STEPS)
def test_stopped_anywhere_and_run_again_a_step_writes_the_same_bytes(step: str, source: Path, tmp_path: Path) -> None:
    run, outputs = STEPS[step]
    task = tmp_path / "task"
    paths = {name: task / name for name in outputs}
    run(source, **paths)
    expected = _digests(task)
    with power_cut(task, _NEVER, random.Random(0)) as disk:  # counts the calls; over the outputs of the first run
        run(source, **paths)
        assert _digests(task) == expected
    chance = random.Random(step)
    for _ in range(STOPS):
        shutil.rmtree(task)
        task.mkdir()
        with power_cut(task, chance.randint(1, disk.calls), chance):
            run(source, **paths)
        for name in outputs:
            if name in KINDS and paths[name].exists():
                verify_dir(paths[name], KINDS[name])  # whole, or not there
        run(source, **paths)
        assert _digests(task) == expected

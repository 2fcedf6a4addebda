"""Every light step, run twice or stopped anywhere and run again, writes the same bytes, and nothing
half is accepted.

STOPS per step: 4 by default, 25 by `make test-faults`. (Training is killed in test_kills.)
"""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.calibrate_gate.config import CalibrateGateConfig
from components.calibrate_gate.step import run as calibrate_gate
from components.calibrate_scrc.config import CalibrateScrcConfig
from components.calibrate_scrc.step import run as calibrate_scrc
from components.compare_adaptations.config import CompareAdaptationsConfig
from components.compare_adaptations.step import run as compare_adaptations
from components.compare_calibrators.config import CompareCalibratorsConfig
from components.compare_calibrators.step import run as compare_calibrators
from components.evaluate.config import EvaluateConfig
from components.evaluate.step import run as evaluate
from components.export_bundle.config import ExportConfig
from components.export_bundle.step import run as export_bundle
from components.fit_threshold.config import FitThresholdConfig
from components.fit_threshold.step import run as fit_threshold
from components.ingest_dataset.config import IngestConfig
from components.ingest_dataset.step import run as ingest_dataset
from components.shared.contracts.artifacts import ANY_SPLIT, sha256_file, verify_dir
from components.split_dataset.config import SplitConfig
from components.split_dataset.step import run as split_dataset
from tests.components.conftest import write_source
from tests.faults.torn import power_cut
from tests.golden.make import BUNDLED, EVALUATED, FOLDER, KINDS
from tests.logits_artifacts import candidate

STOPS = 25 if os.environ.get("KILLS") else 4
_NEVER = 10**9


def _ingest(source: Path, **paths: Path) -> None:
    ingest_dataset(IngestConfig(data=str(source), image_size=28), **paths)


def _compare(source: Path, **paths: Path) -> None:
    for mode in ("frozen", "lora"):
        if not (source.parent / mode).exists():
            candidate(source.parent, mode)
    compare_adaptations(
        CompareAdaptationsConfig(modes=("frozen", "lora"), n_bootstrap=100),
        checkpoints=tuple(source.parent / mode / "checkpoint" for mode in ("frozen", "lora")),
        val_select_logits=tuple(source.parent / mode / "logits" for mode in ("frozen", "lora")),
        **paths,
    )


def _reading(run: Callable[..., Any], config: Any, *same: str, **inputs: str) -> Callable[..., Any]:
    stored = {name: FOLDER / name for name in same} | {
        name: FOLDER / folder for name, folder in inputs.items()
    }
    return lambda source, **paths: run(config, **stored, **paths)


# Step -> (how it is run, its outputs).
STEPS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "ingest_dataset": (_ingest, ("dataset",)),
    "split_dataset": (
        _reading(split_dataset, SplitConfig(min_per_class=2), "dataset"),
        ("splits", "train_images", "train_labels"),
    ),
    "compare_calibrators": (
        _reading(
            compare_calibrators, CompareCalibratorsConfig(n_bootstrap=100), "val_calib_logits"
        ),
        ("calibration",),
    ),
    "compare_adaptations": (_compare, ("checkpoint", "comparison", "table")),
    "fit_threshold": (
        _reading(
            fit_threshold, FitThresholdConfig(n_bootstrap=100), "val_calib_logits", "calibration"
        ),
        ("policy",),
    ),
    "calibrate_gate": (
        _reading(
            calibrate_gate, CalibrateGateConfig(alpha=0.9), val_calib_logits="gate_calib_logits"
        ),
        ("gate_policy",),
    ),
    "calibrate_scrc": (
        _reading(calibrate_scrc, CalibrateScrcConfig(alpha=0.75), "val_calib_logits"),
        ("scrc_policy",),
    ),
    "evaluate": (
        _reading(evaluate, EvaluateConfig(n_bootstrap=100), *EVALUATED),
        ("evaluation", "report"),
    ),
    "export_bundle": (
        _reading(export_bundle, ExportConfig(formats=("transformers",)), *BUNDLED),
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
def test_stopped_anywhere_and_run_again_a_step_writes_the_same_bytes(
    step: str, source: Path, tmp_path: Path
) -> None:
    run, outputs = STEPS[step]
    task = tmp_path / "task"
    paths = {name: task / name for name in outputs}
    run(source, **paths)
    expected = _digests(task)
    with power_cut(
        task, _NEVER, random.Random(0)
    ) as disk:  # counts the calls; over the outputs of the first run
        run(source, **paths)
        assert _digests(task) == expected
    chance = random.Random(step)
    for _ in range(STOPS):
        shutil.rmtree(task)
        task.mkdir()
        with power_cut(task, chance.randint(1, disk.calls), chance):
            run(source, **paths)
        for name in outputs:
            if paths[name].is_dir():
                verify_dir(
                    paths[name], KINDS.get(name, "Policy"), split=ANY_SPLIT
                )  # whole, or not there
        run(source, **paths)
        assert _digests(task) == expected

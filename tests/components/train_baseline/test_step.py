"""Phase 1 alone: what fails for good fails again at once."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from components.import_backbone.config import ImportBackboneConfig
from components.import_backbone.step import run as import_backbone
from components.shared.policies.logits import read_logits
from components.train_baseline.config import TrainBaselineConfig
from components.train_baseline.step import run
from tests.components.conftest import TinyRun
from tests.golden.make import FOLDER

_LIMIT_SECONDS = 5.0


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": "frozen", "learning_rate": 1e-2},
        {"mode": "dora", "optimizer": "profit"},
        {
            "mode": "full",
            "tile_grid": 2,
            "tile_size": 28,
            "conformal_weight": 0.5,
            "conformal_alpha": 0.3,
        },
    ],
)
def test_bf16_trains_what_fp32_trains(
    tiny: TinyRun, tmp_path: Path, changes: dict[str, object]
) -> None:
    found = {}
    for precision in ("fp32", "bf16"):
        values = {
            "epochs": 2,
            "learning_rate": 2e-3,
            "global_batch_size": 16,
            "augmentation": "aggressive",
        }
        config = TrainBaselineConfig.from_mapping(
            values | {"precision": precision, "n_processes": 1} | changes
        )
        out, logits = tmp_path / f"{precision}-checkpoint", tmp_path / f"{precision}-logits"
        run(
            config,
            dataset=tiny.dataset,
            splits=tiny.splits,
            backbone=tiny.backbone,
            checkpoint=out,
            val_select_logits=logits,
        )
        found[precision] = read_logits(logits, "VAL_SELECT")[0].logits
    difference = np.abs(found["bf16"] - found["fp32"]).max()
    assert 0 < difference < 0.1 * np.ptp(found["fp32"])


def _job(folder: Path, backbone: Path) -> Path:
    import_backbone(ImportBackboneConfig(backbone=str(backbone)), pretrained=folder / "imported")
    outputs = ("checkpoint", "val_select_logits")
    paths = {name: str(folder / "task" / name) for name in outputs}
    paths |= {name: str(FOLDER / name) for name in ("dataset", "splits")}
    paths["backbone"] = str(folder / "imported")
    config = {"epochs": 1, "n_processes": 1}
    job = folder / "job.json"
    job.write_text(json.dumps({"config": config, "paths": paths}))
    return job


def _run(job: Path) -> tuple[int, str, float, str]:
    """Exit code, error, seconds, and the modules that took the longest to import."""
    command = [sys.executable, "-X", "importtime", "-m", "components.train_baseline.step", str(job)]
    started = time.monotonic()
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - started
    lines = finished.stderr.splitlines()
    imported = "\n".join(line for line in lines if line.startswith("import time:"))
    error = next((line for line in lines if line.startswith("error:")), "")
    return finished.returncode, error, seconds, imported


def test_a_permanent_error_fails_again_within_seconds_and_without_a_model(tmp_path: Path) -> None:
    backbone = Path(shutil.copytree(FOLDER / "checkpoint/backbone", tmp_path / "backbone"))
    weights = load_file(backbone / "model.safetensors")
    # Finite weights, as every backbone must have, whose features are not.
    for name in ("layernorm.weight", "layernorm.bias"):
        weights[name] = torch.full_like(weights[name], 3e38)
    save_file(weights, backbone / "model.safetensors", metadata={"format": "pt"})
    job = _job(tmp_path, backbone)
    code, error, _, _ = _run(job)
    assert (code, "the largest feature is" in error) == (42, True)
    code, error, seconds, imported = _run(job)
    assert code == 42
    assert "the largest feature is" in error
    assert "as before with the same inputs" in error
    assert seconds < _LIMIT_SECONDS
    assert " torch" not in imported
    assert " transformers" not in imported
    # Another backbone is another training.
    shutil.copytree(FOLDER / "checkpoint/backbone", backbone, dirs_exist_ok=True)
    job = _job(tmp_path, backbone)
    assert _run(job)[0] == 0

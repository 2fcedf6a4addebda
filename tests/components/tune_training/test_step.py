"""A search over trainings goes on inside a training, and begins with the training of the run."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from components.shared.contracts.artifacts import trusting
from components.shared.contracts.errors import ConfigError, TransientError
from components.shared.policies.logits import read_logits
from components.shared.training.checkpoint.writer import CheckpointWriter
from components.shared.training.loop.distributed import World
from components.shared.training.search.trials import Trial, read_trials
from components.train_baseline.config import TrainBaselineConfig
from components.tune_training import search as module
from components.tune_training.config import TuneTrainingConfig
from components.tune_training.search import search
from components.tune_training.step import run
from tests.components.conftest import TinyRun, train
from tests.studies.heads import alone

WORLD = World(0, 1, torch.device("cpu"))
TRAINING = {"mode": "full", "epochs": 2, "global_batch_size": 16, "precision": "fp32"}
CONFIG = TuneTrainingConfig(n_trials=3, n_bootstrap=100, training=TRAINING, checkpoint_steps=1)


def _searched(tiny: TinyRun, folder: Path) -> list[Trial]:
    checkpoints = CheckpointWriter(folder / "checkpoints", CONFIG, step="tune_training")
    for path in (checkpoints.directory, folder / "work"):
        path.mkdir(parents=True, exist_ok=True)
    with alone(), trusting({}):
        search(
            CONFIG,
            tiny.dataset,
            tiny.splits,
            tiny.backbone,
            folder / "work",
            WORLD,
            checkpoints,
        )
    assert not list(checkpoints.directory.glob("trial-*"))
    return read_trials(folder / "work")[0]


def test_an_interruption_inside_a_training_changes_no_byte(
    tiny: TinyRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    whole = _searched(tiny, tmp_path / "whole")
    assert [trial.state for trial in whole] == ["complete"] * 3
    assert "augmentation" in whole[0].options

    evaluations = iter(range(100))
    evaluate = module._WatchedTask.evaluate

    def broken(task: Any) -> dict[str, float]:
        if next(evaluations) == 3:  # at the end of the second training
            raise TransientError("the machine is gone")
        return evaluate(task)

    monkeypatch.setattr(module._WatchedTask, "evaluate", broken)
    with pytest.raises(TransientError, match="the machine is gone"):
        _searched(tiny, tmp_path / "broken")
    assert list((tmp_path / "broken/checkpoints/trial-00001").glob("step-*"))
    monkeypatch.setattr(module._WatchedTask, "evaluate", evaluate)
    capfd.readouterr()

    assert _searched(tiny, tmp_path / "broken") == whole
    assert "resumed at step" in capfd.readouterr().out
    both = [(tmp_path / name / "work/logits.npy").read_bytes() for name in ("whole", "broken")]
    assert both[0] == both[1]


def test_a_head_alone_is_not_searched_by_trainings() -> None:
    with pytest.raises(ConfigError, match="mode='frozen' trains the head alone; use the pipeline"):
        TuneTrainingConfig(training={"mode": "frozen"})


@pytest.mark.slow
def test_the_first_trial_is_the_training_of_the_run(tiny: TinyRun, tmp_path: Path) -> None:
    """Its logits are those of `train_baseline` with the same options, to the bit."""
    config = dataclasses.replace(CONFIG, n_trials=2, checkpoint_steps=None)
    inputs = {name: tiny.root / name for name in ("dataset", "splits", "backbone")}
    metrics = run(config, **inputs, tuning=tmp_path / "tuning", report=tmp_path / "report.html")
    found = json.loads((tmp_path / "tuning/tuning.json").read_text())
    assert metrics["trials"] == 2

    recipe = yaml.safe_load((tmp_path / "tuning/best.yaml").read_text())["train_baseline"]
    assert recipe["mode"] == "full"
    (tmp_path / "train").mkdir()
    train(tiny, TrainBaselineConfig.from_mapping(TRAINING | {"n_processes": 1}), tmp_path / "train")
    logits, _ = read_logits(tmp_path / "train/val_select_logits", "VAL_SELECT")
    of_class = logits.logits.astype(np.float64)
    nll = np.log(np.exp(of_class).sum(1)) - of_class[np.arange(len(of_class)), logits.labels]
    assert found["default"] == pytest.approx(nll.mean(), abs=1e-6)

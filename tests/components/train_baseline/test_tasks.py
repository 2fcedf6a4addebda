"""The loss of phase 1 with conformal risk training."""

import dataclasses

import numpy as np
import pytest
import torch

from components.shared.data.dataset import Dataset
from components.shared.data.splits import read_splits
from components.shared.models.classifier import Classifier
from components.shared.training.loop.distributed import World
from components.shared.training.loop.inference import SplitData
from components.shared.training.loop.selective_losses import conformal_risk
from components.train_baseline.tasks import FrozenTask
from tests.components.conftest import TinyRun


def test_conformal_risk_is_added_with_its_weight(tiny: TinyRun) -> None:
    data, assignment = Dataset.open(tiny.dataset), read_splits(tiny.splits)
    train, select = (SplitData.of(data, assignment, split) for split in ("TRAIN", "VAL_SELECT"))
    config = dataclasses.replace(
        tiny.train_config, augmentation="none", dropout=0.0, global_batch_size=64
    )
    weighted = dataclasses.replace(config, conformal_weight=2.0, conformal_alpha=0.2)
    world, rows = World(0, 1, torch.device("cpu")), np.arange(40)
    values, tasks = [], []
    for chosen in (config, weighted):
        task = FrozenTask(chosen, Classifier.load(tiny.checkpoint), train, select, world)
        tasks.append(task)
        values.append(float(task.loss(task.module, rows, rows, 0).detach()))
    with torch.no_grad():
        logits = tasks[1].module(tasks[1].features[:40, 0])
        positive = tasks[1].labels[:40] == data.class_names.index("Roadwork")
        risk = conformal_risk(
            logits.softmax(1)[:, data.class_names.index("Roadwork")], positive, 0.2
        )
    assert risk is not None
    assert values[1] - values[0] == pytest.approx(2.0 * 40 * float(risk), rel=1e-4)

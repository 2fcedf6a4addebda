"""The losses of phase 1 with conformal risk training, whose threshold is the global batch's."""

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from components.shared.contracts.errors import ConfigError
from components.shared.data.dataset import Dataset
from components.shared.data.splits import read_splits
from components.shared.models.classifier import Classifier
from components.shared.policies.logits import read_logits
from components.shared.training.classifier.tasks import FrozenTask, ImageTask
from components.shared.training.loop.distributed import World
from components.shared.training.loop.inference import SplitData
from components.shared.training.loop.selective_losses import conformal_risk
from components.train_baseline.config import TrainBaselineConfig
from tests.components.conftest import TinyRun, train
from tests.features import feature_sets

WORLD = World(0, 1, torch.device("cpu"))
BATCH, SLOTS = np.arange(40), np.arange(40)
CONFORMAL = {"conformal_weight": 2.0, "conformal_alpha": 0.2, "global_batch_size": 40}


def _task(tiny: TinyRun, mode: str, **changes: object) -> FrozenTask | ImageTask:
    data, assignment = Dataset.open(tiny.dataset), read_splits(tiny.splits)
    splits = [SplitData.of(data, assignment, split) for split in ("TRAIN", "VAL_SELECT")]
    fields = tiny.train_config.to_json() | {"mode": mode, "n_cached_augmentations": 2} | changes
    config = TrainBaselineConfig.from_mapping(fields)
    classifier = Classifier.load(tiny.checkpoint)
    if mode == "full":
        return ImageTask(config, classifier, *splits, WORLD)
    features = feature_sets(config, classifier, *splits, WORLD)
    return FrozenTask(config, classifier, *splits, WORLD, features)


def _gradients(
    task: FrozenTask | ImageTask, loss: torch.Tensor
) -> tuple[float, list[torch.Tensor]]:
    parameters = [p for p in task.module.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return float(loss.detach()), [g for g in found if g is not None]


@pytest.mark.parametrize("mode", ["frozen", "full"])
@pytest.mark.parametrize("size", [40, 7, 1])
def test_micro_batches_have_the_gradient_of_the_global_batchs_risk(
    tiny: TinyRun, mode: str, size: int
) -> None:
    task = _task(tiny, mode, **CONFORMAL)
    plain = _task(tiny, mode, global_batch_size=40)
    logits = task.logits(task.module, BATCH, SLOTS, 0)
    risk = conformal_risk(logits.softmax(1)[:, 1], task.labels[:40] == 1, 0.2)
    assert risk is not None

    for each in (task, plain):
        each.begin_step(BATCH, SLOTS, 0)
    chunks = np.split(SLOTS, range(size, 40, size))
    parts = [task.loss(task.module, BATCH[rows], rows, 0) for rows in chunks]
    value, gradients = _gradients(task, torch.stack(parts).sum())
    whole = plain.loss(plain.module, BATCH, SLOTS, 0)
    plain_value, plain_gradients = _gradients(plain, whole)
    risk_value, risk_gradients = _gradients(task, 2.0 * 40 * risk)

    assert value == pytest.approx(plain_value + risk_value, rel=1e-5)
    for ours, one, two in zip(gradients, plain_gradients, risk_gradients, strict=True):
        torch.testing.assert_close(ours, one + two, rtol=1e-4, atol=1e-4)


def test_a_batch_with_too_few_positives_has_no_risk(tiny: TinyRun) -> None:
    task, plain = _task(tiny, "frozen", **CONFORMAL), _task(tiny, "frozen", global_batch_size=40)
    negatives = np.flatnonzero(task.train.labels == 0)
    batch = np.concatenate([negatives, np.flatnonzero(task.train.labels == 1)])[:40]
    for each in (task, plain):
        each.begin_step(BATCH, SLOTS, 0)
        each.begin_step(batch, SLOTS, 1)
    losses = [each.loss(each.module, batch, SLOTS, 1) for each in (task, plain)]
    assert torch.equal(*losses)


def test_processes_and_micro_batches_do_not_change_the_training(
    tiny: TinyRun, tmp_path: Path
) -> None:
    fields = tiny.train_config.to_json() | {"epochs": 2, "global_batch_size": 32}
    fields |= {"conformal_weight": 1.0, "conformal_alpha": 0.2, "learning_rate": 2e-3}
    for name, changes in (("one", {}), ("two", {"n_processes": 2, "micro_batch_size": 5})):
        (tmp_path / name).mkdir()
        train(tiny, TrainBaselineConfig.from_mapping(fields | changes), tmp_path / name)

    one, two = (
        read_logits(tmp_path / name / "val_select_logits", "VAL_SELECT")[0].logits
        for name in ("one", "two")
    )
    np.testing.assert_allclose(two, one, atol=2e-4)

    with (tmp_path / "two/checkpoint/metrics.csv").open(newline="") as stream:
        active = [float(row["train/conformal_active"]) for row in csv.DictReader(stream)]
    assert len(active) == 2
    assert all(0 < fraction <= 1 for fraction in active)
    assert "train/conformal_active" not in (tiny.checkpoint / "metrics.csv").read_text()


def test_a_risk_that_cannot_act_is_refused_before_anything_is_trained(
    tiny: TinyRun, tmp_path: Path
) -> None:
    config = dataclasses.replace(tiny.train_config, conformal_weight=1.0)
    with pytest.raises(ConfigError, match="needs 9 positives in half of a global batch of 16"):
        train(tiny, config, tmp_path)
    assert not list(tmp_path.iterdir())

"""The gate's loss: a function of the global batch, on micro-batches that bound its memory."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from components.shared.data.dataset import Dataset
from components.shared.data.splits import read_splits
from components.shared.models.classifier import Classifier
from components.shared.training.loop.distributed import World
from components.shared.training.loop.inference import SplitData
from components.shared.training.loop.selective_losses import (
    conformal_risk,
    gatekeeper_losses,
    selective_net_loss,
)
from components.train_gate.config import TrainGateConfig
from components.train_gate.task import GateTask
from tests.components.conftest import TinyRun
from tests.features import feature_sets

BATCH = np.arange(40)


def _task(tiny: TinyRun, loss: str) -> GateTask:
    data, assignment = Dataset.open(tiny.dataset), read_splits(tiny.splits)
    splits = [SplitData.of(data, assignment, split) for split in ("TRAIN", "VAL_SELECT")]
    config = TrainGateConfig(
        gate_loss=loss,
        global_batch_size=40,
        augmentation="none",
        dropout=0.0,
        conformal_weight=0.5,
        conformal_alpha=0.2,
    )
    torch.manual_seed(0)
    world = World(0, 1, torch.device("cpu"))
    classifier = Classifier.load(tiny.checkpoint)
    features = feature_sets(config, classifier, *splits, world)
    return GateTask(config, classifier, *splits, world, features)


def _expected(task: GateTask) -> torch.Tensor:
    """The mean loss of the batch, from its definition."""
    labels = task.labels[:40]
    logits, scores = task.heads(torch.from_numpy(task.features.train.take(BATCH)))
    risk = conformal_risk(logits.softmax(1)[:, 1], labels == 1, 0.2)
    assert risk is not None
    if scores is None:
        return gatekeeper_losses(logits, labels, 0.5).mean() + 0.5 * risk
    losses = F.cross_entropy(logits, labels, reduction="none")
    return selective_net_loss(losses, scores.sigmoid(), 0.8) + 0.5 * risk


@pytest.mark.parametrize("loss", ["selectivenet", "gatekeeper"])
@pytest.mark.parametrize("size", [40, 7, 1])
def test_micro_batches_have_the_gradient_of_the_global_batch(
    tiny: TinyRun, loss: str, size: int
) -> None:
    task = _task(tiny, loss)
    parameters = list(task.module.parameters())
    whole = _expected(task)
    expected = torch.autograd.grad(40 * whole, parameters)

    sizes: list[int] = []

    def count(_module: nn.Module, args: tuple[torch.Tensor, ...], _out: object) -> None:
        sizes.append(len(args[0]) if torch.is_grad_enabled() else 0)

    task.module.register_forward_hook(count)
    task.begin_step(BATCH, BATCH, 0)
    total = 0.0
    for rows in np.split(BATCH, range(size, 40, size)):
        part = task.loss(task.module, BATCH[rows], rows, 0)
        part.backward()  # type: ignore[no-untyped-call]
        total += float(part.detach())

    assert max(sizes) == size  # what a pass with gradients holds in memory
    assert total == pytest.approx(40 * float(whole.detach()), rel=1e-5)
    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-4)


def test_every_head_that_is_trained_is_kept(tiny: TinyRun) -> None:
    """SelectiveNet's auxiliary head would reach nothing but itself: the features are fixed."""
    task = _task(tiny, "selectivenet")
    kept = {id(p) for p in [*task.heads.head.parameters(), *task.heads.gate.parameters()]}  # type: ignore[union-attr]
    assert {id(p) for p in task.module.parameters()} == kept

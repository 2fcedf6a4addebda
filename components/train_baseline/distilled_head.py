"""Distillation of a multi-view classifier into a head for the full image alone.

The head serves consumers that give a model one image, such as transformers' stock pipeline. Its
targets are the probabilities of all views on TRAIN instead of labels (Hinton et al. 2015, arXiv
1503.02531, at temperature 1); its inputs are the fixed backbone's features of unaugmented full
images. The training loop is that of all phases.
"""

import copy
import dataclasses
import math

import torch
from torch import nn
from torch.nn import functional as F

from components.shared.contracts.random_streams import DistilledHeadStream
from components.shared.data.features import Features
from components.shared.models.classifier import BagHead, Classifier, Head
from components.shared.training.loop.distributed import World
from components.shared.training.loop.dropout import dropout_mask
from components.shared.training.loop.inference import Positions, SplitData, predict_columns
from components.shared.training.loop.sampler import steps_per_epoch
from components.shared.training.session.features import FeatureSets, in_blocks
from components.shared.training.session.fit import fit
from components.train_baseline.config import TrainBaselineConfig

_MONITOR = "val_select/minus_distillation"
# A linear head on cached features converges within seconds, for any recipe of the classifier.
_LEARNING_RATE = 1e-2
_N_STEPS = 1000


class DistillationTask:
    """Cross-entropy of the distilled head's outputs with those of all views.

    The head starts from the weights of the multi-view head.
    """

    def __init__(
        self,
        classifier: Classifier,
        train: SplitData,
        select: SplitData,
        world: World,
        config: TrainBaselineConfig,
        cached: FeatureSets | None,
    ) -> None:
        assert isinstance(classifier.head, BagHead)
        self.head = Head(classifier.head.linear.in_features, 2).to(world.device)
        self.head.linear.load_state_dict(copy.deepcopy(classifier.head.linear.state_dict()))
        self.module: nn.Module = self.head
        self.monitor = _MONITOR
        self.n_samples, self.world, self.config = len(train), world, config
        self.features, self.targets = _features_and_targets(
            classifier, train, world, config.precision, cached.train if cached else None
        )
        self.select_features, self.select_targets = _features_and_targets(
            classifier, select, world, config.precision, cached.select if cached else None
        )

    def loss(
        self, model: nn.Module, positions: Positions, batch_slots: Positions, step: int
    ) -> torch.Tensor:
        """Return the cross-entropy, summed over the samples."""
        rows = self.world.on_device(positions)
        logits = model(self.features[rows], self._head_dropout(batch_slots, step)).float()
        return F.cross_entropy(logits, self.targets[rows], reduction="sum")

    def evaluate(self) -> dict[str, float]:
        """Return, on VAL_SELECT, minus the loss and the fraction of equal decisions."""
        with torch.no_grad():
            logits = self.head(self.select_features).float()
        agreement = (logits.argmax(dim=1) == self.select_targets.argmax(dim=1)).double().mean()
        return {
            _MONITOR: -float(F.cross_entropy(logits, self.select_targets)),
            "val_select/agreement": float(agreement),
        }

    def _head_dropout(self, batch_slots: Positions, step: int) -> torch.Tensor | None:
        """Return the dropout mask (n, 2h) of these batch slots."""
        return dropout_mask(
            self.config.dropout,
            batch_slots,
            self.features.shape[1],
            self.config.seed,
            step,
            DistilledHeadStream.DROPOUT,
            self.world.device,
        )


def distil(
    classifier: Classifier,
    train: SplitData,
    select: SplitData,
    world: World,
    config: TrainBaselineConfig,
    cached: FeatureSets | None = None,
) -> tuple[Head, dict[str, float]]:
    """Return the distilled head and its metrics at the best epoch.

    Training takes seconds and writes no checkpoints.

    Args:
        classifier: The trained multi-view classifier.
        train: TRAIN.
        select: VAL_SELECT, by which the epoch is selected.
        world: The ranks.
        config: Configuration of the phase, for batch size, dropout and seed.
        cached: Features of all views, where the backbone is frozen and they were computed before.
    """
    own = dataclasses.replace(
        config,
        epochs=math.ceil(_N_STEPS / steps_per_epoch(len(train), config.global_batch_size)),
        learning_rate=_LEARNING_RATE,
        micro_batch_size=None,
        patience=None,
    )

    task = DistillationTask(classifier, train, select, world, own, cached)
    result = fit(task, own, world)
    task.head.eval()
    best = result.history[result.best_epoch - 1]

    return task.head, {name: value for name, value in best.items() if "/" in name}


def _features_and_targets(
    classifier: Classifier,
    part: SplitData,
    world: World,
    precision: str,
    cached: Features | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return features (N, 2h) of full images, and probabilities (N, 2) from all views.

    The features of all other views are dropped batch by batch.
    """

    def columns(features: torch.Tensor) -> torch.Tensor:
        return torch.cat([features[:, 0], classifier.head(features).softmax(dim=1)], dim=1)

    label = "features for the distilled head"
    found = (
        predict_columns(classifier, part, world, columns, label, precision=precision)
        if cached is None
        else in_blocks(columns, cached, world)
    ).to(world.device)

    n_features = classifier.head.linear.in_features
    return found[:, :n_features].contiguous(), found[:, n_features:].contiguous()

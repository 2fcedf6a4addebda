"""What would a head say that sees the whole image alone, for consumers that give a model one image?

Distilled from the margins of all views on TRAIN: soft targets instead of labels (Hinton et al.
2015, arXiv 1503.02531, at temperature 1), on the fixed backbone's features of the undistorted whole
images, through the one loop.
"""

import copy
import dataclasses
import math

import torch
from torch import nn
from torch.nn import functional as F

from components.shared.contracts.random_streams import DistilledHeadStream
from components.shared.models.classifier import BagHead, Classifier, Head
from components.shared.training.loop.distributed import World
from components.shared.training.loop.inference import Positions, SplitData, features_of
from components.shared.training.loop.sampler import dropout_mask, steps_per_epoch
from components.shared.training.session.fit import fit
from components.train_baseline.config import TrainBaselineConfig

_MONITOR = "val_select/minus_distillation"
_LEARNING_RATE, _STEPS = (
    1e-2,
    1000,
)  # a linear head on cached features: seconds, whatever the phase's own recipe is


class StudentTask:
    """Cross-entropy of the student's answers with the teacher's; it starts from the teacher's own
    weights.
    """

    def __init__(
        self,
        classifier: Classifier,
        train: SplitData,
        select: SplitData,
        world: World,
        config: TrainBaselineConfig,
    ) -> None:
        assert isinstance(classifier.head, BagHead)
        self.head = Head(classifier.head.linear.in_features, 2).to(world.device)
        self.head.linear.load_state_dict(copy.deepcopy(classifier.head.linear.state_dict()))
        self.module: nn.Module = self.head
        self.n_samples, self.world, self.dropout = len(train), world, config.dropout
        self.monitor = _MONITOR
        self.size, self.seed = min(config.global_batch_size, self.n_samples), config.seed
        self.features, self.targets = _whole_and_targets(classifier, train, world)
        self.select_features, self.select_targets = _whole_and_targets(classifier, select, world)

    def loss(
        self, model: nn.Module, positions: Positions, batch_slots: Positions, step: int
    ) -> torch.Tensor:
        """Summed over the samples."""
        rows = torch.from_numpy(positions)
        mask = dropout_mask(
            self.dropout,
            (self.size, self.features.shape[1]),
            self.seed,
            step,
            DistilledHeadStream.DROPOUT,
        )
        keep = None if mask is None else torch.from_numpy(mask[batch_slots]).to(self.world.device)
        return F.cross_entropy(
            model(self.features[rows], keep).float(), self.targets[rows], reduction="sum"
        )

    def evaluate(self) -> dict[str, float]:
        """On VAL_SELECT: minus the loss, and the share of images with the teacher's answer."""
        with torch.no_grad():
            logits = self.head(self.select_features).float()
        agreement = (logits.argmax(dim=1) == self.select_targets.argmax(dim=1)).double().mean()
        return {
            _MONITOR: -float(F.cross_entropy(logits, self.select_targets)),
            "val_select/agreement": float(agreement),
        }


def distil(
    classifier: Classifier,
    train: SplitData,
    select: SplitData,
    world: World,
    config: TrainBaselineConfig,
) -> tuple[Head, dict[str, float]]:
    """The student's head, and its metrics at the best epoch. Seconds, so that no checkpoint is kept
    of it.
    """
    own = dataclasses.replace(
        config,
        epochs=math.ceil(_STEPS / steps_per_epoch(len(train), config.global_batch_size)),
        learning_rate=_LEARNING_RATE,
        micro_batch_size=None,
        patience=None,
    )
    task = StudentTask(classifier, train, select, world, own)
    result = fit(task, own, world)
    task.head.eval()
    return task.head, {
        name: value for name, value in result.history[result.best_epoch - 1].items() if "/" in name
    }


def _whole_and_targets(
    classifier: Classifier, part: SplitData, world: World
) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, 2h) features of whole images, and (N, 2) probabilities that all views give."""
    features = features_of(classifier, part, world, description="features for the student").to(
        world.device
    )
    with torch.no_grad():
        return features[:, 0].clone(), classifier.head(features).softmax(dim=1)

"""The classifier's losses: on cached features (frozen backbone), or on augmented images."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from components.shared.calibration.model_selection import selection_metrics
from components.shared.contracts.random_streams import ClassifierStream
from components.shared.models.classifier import Classifier, normalise, standardise
from components.shared.training.classifier.config import ClassifierConfig
from components.shared.training.loop import conformal_batches
from components.shared.training.loop.batch_loss import BatchLoss
from components.shared.training.loop.distributed import World
from components.shared.training.loop.dropout import dropout_mask
from components.shared.training.loop.halving import PartSize
from components.shared.training.loop.inference import (
    Positions,
    SplitData,
    infer,
    part_size,
    predict,
)
from components.shared.training.loop.sampler import step_rng
from components.shared.training.loop.selective_losses import conformal_risk
from components.shared.training.session.features import FeatureSets, in_blocks
from components.shared.vision import augmentation as augment

_FEATURES_AT_A_TIME = 1024  # a few megabytes


class Labelled(Protocol):
    """Samples of one split, of which a loss knows the labels (N,) int64."""

    @property
    def labels(self) -> npt.NDArray[np.int64]: ...

    def __len__(self) -> int: ...


class _ClassifierTask(ABC):
    """The common part of both tasks: losses, targets, class weights, dropout masks, metrics.

    `module` is what is trained; without gradients, it takes `scores_at_a_time` samples at a time.
    """

    module: nn.Module
    scores_at_a_time: PartSize

    def __init__(
        self,
        config: ClassifierConfig,
        classifier: Classifier,
        train: Labelled,
        select: Labelled,
        world: World,
    ) -> None:
        self.config, self.classifier, self.world = config, classifier, world
        self.train, self.select = train, select
        self.monitor: str | None = config.monitor
        self.n_samples = len(train)
        self.batch_size = min(config.global_batch_size, self.n_samples)
        self.outcomes = config.outcomes(classifier.spec.class_names)
        self.labels = torch.from_numpy(train.labels).to(world.device)
        self.class_weights = torch.tensor(
            self._class_weights(), dtype=torch.float32, device=world.device
        )
        self._conformal_risk: BatchLoss | None = None

    @abstractmethod
    def logits(
        self, model: nn.Module, positions: Positions, batch_slots: Positions, step: int
    ) -> torch.Tensor:
        """Return the logits (n, C) of these samples at this step."""

    def begin_step(self, batch: Positions, batch_slots: Positions, step: int) -> None:
        """Compute the conformal risk of the global batch, without gradients; collective.

        The scores that decide are those of half a batch: all ranks compute equal parts of them.
        """
        del batch_slots
        self._conformal_risk = None
        if not self.config.conformal_weight:
            return

        positive = self._positive()[batch]
        if not conformal_batches.can_act(positive, self.config.conformal_alpha):
            return
        slots = conformal_batches.needed_slots(positive)

        def scores_of(rows: Positions) -> torch.Tensor:
            return self._scores(self.logits(self.module, batch[slots[rows]], slots[rows], step))

        found = infer(
            scores_of,
            len(slots),
            self.world,
            "",
            self.config.precision,
            batch_size=self.scores_at_a_time,
        )
        scores = torch.zeros(len(batch), device=self.world.device)
        scores[self.world.on_device(slots)] = found.to(self.world.device)
        self._conformal_risk = BatchLoss.of(scores, self._risk_of(positive))

    def loss(
        self, model: nn.Module, positions: Positions, batch_slots: Positions, step: int
    ) -> torch.Tensor:
        """Return cross-entropy plus weighted conformal risk, summed over the samples."""
        logits = self.logits(model, positions, batch_slots, step)
        # The mean class weight over TRAIN is 1.
        loss = F.cross_entropy(
            logits.float(),
            self.labels[self.world.on_device(positions)],
            weight=self.class_weights,
            label_smoothing=self.config.label_smoothing,
            reduction="sum",
        )

        if self._conformal_risk is not None:
            risk = self._conformal_risk.part(
                self._scores(logits), self.world.on_device(batch_slots)
            )
            loss = loss + self.config.conformal_weight * risk

        return loss

    def epoch_metrics(self, epoch: int) -> dict[str, float]:
        """Return the fraction of the epoch's steps in which the conformal risk acts."""
        if not self.config.conformal_weight:
            return {}
        active = conformal_batches.active_fraction(self._positive(), self.config, epoch)
        return {conformal_batches.ACTIVE: active}

    def _positive(self) -> npt.NDArray[np.bool_]:
        return np.asarray(self.train.labels == self.outcomes.positive_index)

    def _scores(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the probabilities (n,) of the positive class."""
        return logits.float().softmax(dim=1)[:, self.outcomes.positive_index]

    def _risk_of(self, positive: npt.NDArray[np.bool_]) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the risk as a function of the scores (B,) of a batch that can act."""
        labels = torch.from_numpy(positive).to(self.world.device)

        def risk_of(scores: torch.Tensor) -> torch.Tensor:
            risk = conformal_risk(scores, labels, self.config.conformal_alpha)
            assert risk is not None  # `can_act` has said so
            return risk

        return risk_of

    def head_dropout(self, batch_slots: Positions, step: int) -> torch.Tensor | None:
        """Return the dropout mask (n, 2h) of these batch slots, scaled by 1 / (1 - dropout)."""
        return dropout_mask(
            self.config.dropout,
            batch_slots,
            self.classifier.head.linear.in_features,
            self.config.seed,
            step,
            ClassifierStream.DROPOUT,
            self.world.device,
        )

    def metrics(self, logits: npt.NDArray[np.float32]) -> dict[str, float]:
        """Return the metrics on VAL_SELECT from logits (N, C)."""
        return selection_metrics(logits, self.select.labels, self.outcomes)

    def _class_weights(self) -> npt.NDArray[np.float64]:
        counts = np.bincount(self.train.labels, minlength=len(self.classifier.spec.class_names))
        if self.config.class_weights == "none":
            return np.ones(len(counts))
        return np.asarray(self.n_samples / (np.count_nonzero(counts) * np.maximum(counts, 1)))


class FrozenTask(_ClassifierTask):
    """The head on features that are computed once.

    There are `n_cached_augmentations` feature vectors per image; the first is of the unaugmented
    image.
    """

    def __init__(
        self,
        config: ClassifierConfig,
        classifier: Classifier,
        train: Labelled,
        select: Labelled,
        world: World,
        features: FeatureSets,
    ) -> None:
        super().__init__(config, classifier, train, select, world)
        self.module, self.scores_at_a_time = classifier.head, PartSize(_FEATURES_AT_A_TIME)
        self.features = features

    def logits(
        self, model: nn.Module, positions: Positions, batch_slots: Positions, step: int
    ) -> torch.Tensor:
        """Return the logits (n, C); every step draws one cached augmentation per sample."""
        rng = step_rng(self.config.seed, step, ClassifierStream.CHOICE_OF_CACHED_AUGMENTATION)
        chosen = rng.integers(self.features.train.n_augmentations, size=self.batch_size)
        taken = self.features.train.take(positions, chosen[batch_slots])
        features = self.world.on_device(taken)
        return torch.Tensor(model(features, self.head_dropout(batch_slots, step)))

    def evaluate(self) -> dict[str, float]:
        """Return the metrics on VAL_SELECT."""
        logits = in_blocks(self.classifier.head, self.features.select, self.world)
        return self.metrics(logits.cpu().numpy())


class ImageTask(_ClassifierTask):
    """The whole classifier on images that are augmented anew at every step."""

    def __init__(
        self,
        config: ClassifierConfig,
        classifier: Classifier,
        train: SplitData,
        select: SplitData,
        world: World,
    ) -> None:
        super().__init__(config, classifier, train, select, world)
        self.module, self.scores_at_a_time = classifier, part_size(classifier, world)
        self.fresh: nn.Module = classifier.head
        self.selected = select
        # Crops are taken from the stored pixels, of which there may be more than the model sees.
        seen = train if config.augmentation != "none" else train.resized(classifier.spec.image_size)
        self.reader = seen.reader(world.device)

    def logits(
        self, model: nn.Module, positions: Positions, batch_slots: Positions, step: int
    ) -> torch.Tensor:
        """Return the logits (n, C); augmentation depends on (seed, step, batch slot) alone."""
        with self.world.timings.part("data"):
            pixels = self._pixels(positions, batch_slots, step)
        return torch.Tensor(model(pixels, self.head_dropout(batch_slots, step)))

    def _pixels(self, positions: Positions, batch_slots: Positions, step: int) -> torch.Tensor:
        """Return the augmented images (n, 3, s, s) float32, normalised."""
        images, spec = self.reader.images(positions), self.classifier.spec
        if self.config.augmentation == "none":
            return normalise(images, spec)

        rng = step_rng(self.config.seed, step, ClassifierStream.AUGMENTATION)
        parameters = augment.draw(rng, self.batch_size, self.config.augmentation)
        crops = augment.apply(images, parameters.take(batch_slots), spec.image_size)
        return standardise(crops, spec)

    def evaluate(self) -> dict[str, float]:
        """Return the metrics on VAL_SELECT."""
        return self.metrics(
            predict(self.classifier, self.selected, self.world, precision=self.config.precision)
        )

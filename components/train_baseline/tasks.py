"""The classifier's losses: on cached features (frozen backbone), or on augmented images."""

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from components.shared.calibration.model_selection import selection_metrics
from components.shared.contracts.random_streams import ClassifierStream
from components.shared.models.classifier import Classifier, normalise, standardise
from components.shared.training.loop.distributed import World
from components.shared.training.loop.inference import (
    Positions,
    SplitData,
    cached_features,
    features_of,
    predict,
)
from components.shared.training.loop.sampler import dropout_mask, step_rng
from components.shared.training.loop.selective_losses import conformal_risk
from components.shared.vision import augmentation as augment
from components.train_baseline.config import TrainBaselineConfig


class _ClassifierTask:
    """The common part of both tasks: targets, class weights, dropout masks, metrics."""

    def __init__(
        self,
        config: TrainBaselineConfig,
        classifier: Classifier,
        train: SplitData,
        select: SplitData,
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

    def objective(self, logits: torch.Tensor, positions: Positions) -> torch.Tensor:
        """Return cross-entropy plus weighted conformal risk, summed over the samples.

        Args:
            logits: (n, C).
            positions: (n,) numbers of the samples in TRAIN.
        """
        labels = self.labels[torch.from_numpy(positions)]
        # The mean class weight over TRAIN is 1.
        loss = F.cross_entropy(
            logits.float(),
            labels,
            weight=self.class_weights,
            label_smoothing=self.config.label_smoothing,
            reduction="sum",
        )

        if self.config.conformal_weight:
            positive = self.outcomes.positive_index
            scores = logits.float().softmax(dim=1)[:, positive]
            risk = conformal_risk(scores, labels == positive, self.config.conformal_alpha)
            if risk is not None:
                loss = loss + self.config.conformal_weight * len(positions) * risk

        return loss

    def head_dropout(self, batch_slots: Positions, step: int) -> torch.Tensor | None:
        """Return the dropout mask (n, 2h) of these batch slots, scaled by 1 / (1 - dropout)."""
        shape = (self.batch_size, self.classifier.head.linear.in_features)
        mask = dropout_mask(
            self.config.dropout, shape, self.config.seed, step, ClassifierStream.DROPOUT
        )
        return None if mask is None else torch.from_numpy(mask[batch_slots]).to(self.world.device)

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
        config: TrainBaselineConfig,
        classifier: Classifier,
        train: SplitData,
        select: SplitData,
        world: World,
    ) -> None:
        super().__init__(config, classifier, train, select, world)
        self.module: nn.Module = classifier.head
        # (N, A, 2h) for A augmentations, or (N, A, V, 2h) for V views.
        self.features = cached_features(
            classifier,
            train,
            world,
            n_augmentations=1 if config.augmentation == "none" else config.n_cached_augmentations,
            augmentation=config.augmentation,
            seed=config.seed,
            precision=config.precision,
        ).to(world.device)
        self.select_features = features_of(
            classifier, select, world, precision=config.precision, description="features VAL_SELECT"
        ).to(world.device)

    def loss(
        self, model: nn.Module, positions: Positions, batch_slots: Positions, step: int
    ) -> torch.Tensor:
        """Return the summed loss; every step draws one cached augmentation per sample."""
        rng = step_rng(self.config.seed, step, ClassifierStream.CHOICE_OF_CACHED_AUGMENTATION)
        chosen = rng.integers(self.features.shape[1], size=self.batch_size)[batch_slots]
        features = self.features[torch.from_numpy(positions), torch.from_numpy(chosen)]
        return self.objective(model(features, self.head_dropout(batch_slots, step)), positions)

    def evaluate(self) -> dict[str, float]:
        """Return the metrics on VAL_SELECT."""
        with torch.no_grad():
            return self.metrics(self.classifier.head(self.select_features).cpu().numpy())


class ImageTask(_ClassifierTask):
    """The whole classifier on images that are augmented anew at every step."""

    def __init__(
        self,
        config: TrainBaselineConfig,
        classifier: Classifier,
        train: SplitData,
        select: SplitData,
        world: World,
    ) -> None:
        super().__init__(config, classifier, train, select, world)
        self.module: nn.Module = classifier

    def loss(
        self, model: nn.Module, positions: Positions, batch_slots: Positions, step: int
    ) -> torch.Tensor:
        """Return the summed loss; augmentation depends on (seed, step, batch slot) alone."""
        images = self.train.images(positions, self.world.device)
        spec = self.classifier.spec
        if self.config.augmentation == "none":
            pixels = normalise(images, spec)
        else:
            rng = step_rng(self.config.seed, step, ClassifierStream.AUGMENTATION)
            parameters = augment.draw(rng, self.batch_size, self.config.augmentation)
            pixels = standardise(augment.apply(images, parameters.take(batch_slots)), spec)

        return self.objective(model(pixels, self.head_dropout(batch_slots, step)), positions)

    def evaluate(self) -> dict[str, float]:
        """Return the metrics on VAL_SELECT."""
        return self.metrics(
            predict(self.classifier, self.select, self.world, precision=self.config.precision)
        )

"""Losses of a sample: on cached features (frozen backbone) or on augmented images (full,
adapters).
"""

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
    cached_views,
    features_of,
    predict,
)
from components.shared.training.loop.sampler import dropout_mask, step_rng
from components.shared.training.loop.selective_losses import conformal_risk
from components.shared.vision import augmentation as augment
from components.train_baseline.config import TrainBaselineConfig


class _Task:
    """What both modes share: targets, class weights, dropout masks, metrics on VAL_SELECT."""

    def __init__(
        self,
        config: TrainBaselineConfig,
        classifier: Classifier,
        train: SplitData,
        select: SplitData,
        world: World,
    ) -> None:
        self.config, self.classifier, self.train, self.select, self.world = (
            config,
            classifier,
            train,
            select,
            world,
        )
        self.n_samples = len(train)
        self.monitor: str | None = config.monitor
        self.labels = torch.from_numpy(train.labels).to(world.device)
        counts = np.bincount(train.labels, minlength=len(classifier.spec.class_names))
        balanced = len(train) / (np.count_nonzero(counts) * np.maximum(counts, 1))
        weights = balanced if config.class_weights == "balanced" else np.ones(len(counts))
        self.class_weights = torch.tensor(weights, dtype=torch.float32, device=world.device)

    def cross_entropy(self, logits: torch.Tensor, positions: Positions) -> torch.Tensor:
        """Weighted, smoothed cross-entropy summed over the samples; the mean weight over TRAIN is
        1.
        """
        return F.cross_entropy(
            logits.float(),
            self.labels[torch.from_numpy(positions)],
            weight=self.class_weights,
            label_smoothing=self.config.label_smoothing,
            reduction="sum",
        )

    def objective(self, logits: torch.Tensor, positions: Positions) -> torch.Tensor:
        """Cross-entropy and, where asked for, conformal risk, summed over the samples."""
        loss = self.cross_entropy(logits, positions)
        if self.config.conformal_weight:
            positive = self.classifier.spec.class_names.index(self.config.positive_class)
            scores = logits.float().softmax(dim=1)[:, positive]
            risk = conformal_risk(
                scores,
                self.labels[torch.from_numpy(positions)] == positive,
                self.config.conformal_alpha,
            )
            if risk is not None:
                loss = loss + self.config.conformal_weight * len(positions) * risk
        return loss

    def keep_mask(self, batch_slots: Positions, step: int) -> torch.Tensor | None:
        """Dropout mask (n, 2h) of these places in the global batch, scaled by 1 / (1 - dropout)."""
        shape = (
            min(self.config.global_batch_size, self.n_samples),
            self.classifier.head.linear.in_features,
        )
        mask = dropout_mask(
            self.config.dropout, shape, self.config.seed, step, ClassifierStream.DROPOUT
        )
        return None if mask is None else torch.from_numpy(mask[batch_slots]).to(self.world.device)

    def scores(self, logits: npt.NDArray[np.float32]) -> dict[str, float]:
        """Metrics on VAL_SELECT from logits (N, K)."""
        positive = self.classifier.spec.class_names.index(self.config.positive_class)
        return selection_metrics(logits, self.select.labels, positive)


class FrozenTask(_Task):
    """The head on features that are computed once: `n_cached_augmentations` per image, the first
    undistorted.
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
        n_views = 1 if config.augmentation == "none" else config.n_cached_augmentations
        # (N, k, 2h) and (M, 2h)
        self.features = cached_views(
            classifier,
            train,
            world,
            n_views=n_views,
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
        """Summed loss; each sample shows one of its cached views, drawn anew every step."""
        size = min(self.config.global_batch_size, self.n_samples)
        rng = step_rng(self.config.seed, step, ClassifierStream.CHOICE_OF_CACHED_AUGMENTATION)
        view = rng.integers(self.features.shape[1], size=size)[batch_slots]
        features = self.features[torch.from_numpy(positions), torch.from_numpy(view)]
        return self.objective(model(features, self.keep_mask(batch_slots, step)), positions)

    def evaluate(self) -> dict[str, float]:
        """Metrics on VAL_SELECT."""
        with torch.no_grad():
            return self.scores(self.classifier.head(self.select_features).cpu().numpy())


class ImageTask(_Task):
    """The whole classifier on freshly augmented images."""

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
        """Summed loss of augmented images; the augmentation depends on (seed, step, slot) alone."""
        images = self.train.images(positions, self.world.device)
        spec = self.classifier.spec
        if self.config.augmentation == "none":
            pixels = normalise(images, spec)
        else:
            size = min(self.config.global_batch_size, self.n_samples)
            rng = step_rng(self.config.seed, step, ClassifierStream.AUGMENTATION)
            parameters = augment.draw(rng, size, self.config.augmentation).take(batch_slots)
            pixels = standardise(augment.apply(images, parameters), spec)
        return self.objective(model(pixels, self.keep_mask(batch_slots, step)), positions)

    def evaluate(self) -> dict[str, float]:
        """Metrics on VAL_SELECT."""
        return self.scores(
            predict(self.classifier, self.select, self.world, precision=self.config.precision)
        )

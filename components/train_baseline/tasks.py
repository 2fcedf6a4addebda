"""What is the loss of a sample: on cached features (frozen backbone) or on augmented images (lora, full)?"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from components.shared.data import augment
from components.shared.data.dataset import Dataset
from components.shared.data.splits import Splits
from components.shared.evaluation import metrics
from components.shared.models.classifier import Classifier, ClassifierSpec, normalise, standardise
from components.shared.progress import progress
from components.shared.training.distributed import World
from components.shared.training.sampler import step_rng
from components.train_baseline.config import TrainBaselineConfig

Positions = npt.NDArray[np.int64]
# Random streams of a step; feature caching uses the view number in place of a step.
_DROPOUT, _AUGMENTATION, _VIEW, _CACHED_VIEW = range(4)
_INFERENCE_BATCH = 32


@dataclass(frozen=True)
class SplitData:
    """Images and labels of one split, in the order of its sorted sample ids. labels: (N,) int64."""

    data: Dataset
    positions: Positions
    labels: npt.NDArray[np.int64]

    @classmethod
    def of(cls, data: Dataset, assignment: Splits, split: str) -> Self:
        """The samples `assignment` puts into `split`."""
        positions = np.array([data.index[sample_id] for sample_id in assignment.ids(split)], dtype=np.int64)
        return cls(data, positions, np.array([data.samples[i].label for i in positions], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.positions)

    def images(self, rows: Positions, device: torch.device) -> torch.Tensor:
        """(n, S, S, 3) uint8."""
        return torch.from_numpy(self.data.images(self.positions[rows])).to(device)

    def pixels(self, rows: Positions, spec: ClassifierSpec, device: torch.device) -> torch.Tensor:
        """(n, 3, S, S) float32, normalised, undistorted."""
        return normalise(self.images(rows, device), spec)


class _Task:
    """What both modes share: targets, class weights, dropout masks, metrics on VAL_SELECT."""

    def __init__(
        self, config: TrainBaselineConfig, classifier: Classifier, train: SplitData, select: SplitData, world: World
    ) -> None:
        self.config, self.classifier, self.train, self.select, self.world = config, classifier, train, select, world
        self.n_samples = len(train)
        self.labels = torch.from_numpy(train.labels).to(world.device)
        counts = np.bincount(train.labels, minlength=len(classifier.spec.class_names))
        balanced = len(train) / (np.count_nonzero(counts) * np.maximum(counts, 1))
        weights = balanced if config.class_weights == "balanced" else np.ones(len(counts))
        self.class_weights = torch.tensor(weights, dtype=torch.float32, device=world.device)

    def cross_entropy(self, logits: torch.Tensor, positions: Positions) -> torch.Tensor:
        """Weighted, smoothed cross-entropy summed over the samples; the mean weight over TRAIN is 1."""
        return F.cross_entropy(
            logits.float(),
            self.labels[torch.from_numpy(positions)],
            weight=self.class_weights,
            label_smoothing=self.config.label_smoothing,
            reduction="sum",
        )

    def keep_mask(self, slots: Positions, step: int) -> torch.Tensor | None:
        """Dropout mask (n, 2h) of these places in the global batch, scaled by 1 / (1 - dropout)."""
        rate = self.config.dropout
        if rate == 0:
            return None
        size = min(self.config.global_batch_size, self.n_samples)
        n_features = self.classifier.head.linear.in_features
        draws = step_rng(self.config.seed, step, _DROPOUT).random((size, n_features), dtype=np.float32)[slots]
        return torch.from_numpy((draws >= rate).astype(np.float32) / (1 - rate)).to(self.world.device)

    def scores(self, logits: npt.NDArray[np.float32]) -> dict[str, float]:
        """acc, mcc, auroc and loss on VAL_SELECT from logits (N, K)."""
        labels = self.select.labels
        positive = self.classifier.spec.class_names.index(self.config.positive_class)
        wide = logits.astype(np.float64)
        margin = wide[:, positive] - np.logaddexp.reduce(np.delete(wide, positive, axis=1), axis=1)
        truth, decision = labels == positive, margin > 0
        return {
            "val_select/acc": float((logits.argmax(axis=1) == labels).mean()),
            "val_select/mcc": float(metrics.mcc(truth, decision)),
            "val_select/auroc": float(metrics.auroc(truth, margin)),
            "val_select/nll": float(F.cross_entropy(torch.from_numpy(wide), torch.from_numpy(labels))),
        }


class FrozenTask(_Task):
    """The head on features that are computed once: `n_views` per training image, the first undistorted."""

    def __init__(
        self, config: TrainBaselineConfig, classifier: Classifier, train: SplitData, select: SplitData, world: World
    ) -> None:
        super().__init__(config, classifier, train, select, world)
        self.module: nn.Module = classifier.head
        n_views = 1 if config.augmentation == "none" else config.n_views
        views = [self._features(train, view, n_views) for view in range(n_views)]
        self.features = torch.stack(views, dim=1).to(world.device)  # (N, k, 2h)
        self.select_features = self._features(select, 0, 0).to(world.device)

    def loss(self, model: nn.Module, positions: Positions, slots: Positions, step: int) -> torch.Tensor:
        """Summed loss; each sample shows one of its cached views, drawn anew every step."""
        size = min(self.config.global_batch_size, self.n_samples)
        view = step_rng(self.config.seed, step, _VIEW).integers(self.features.shape[1], size=size)[slots]
        features = self.features[torch.from_numpy(positions), torch.from_numpy(view)]
        return self.cross_entropy(model(features, self.keep_mask(slots, step)), positions)

    def evaluate(self) -> dict[str, float]:
        """Metrics on VAL_SELECT."""
        with torch.no_grad():
            return self.scores(self.classifier.head(self.select_features).cpu().numpy())

    def _features(self, part: SplitData, view: int, n_views: int) -> torch.Tensor:
        """(N, 2h) float32 on the CPU, equal on every rank; view 0 is the undistorted image."""
        parameters = None
        if view > 0:
            rng = step_rng(self.config.seed, view, _CACHED_VIEW)
            parameters = augment.draw(rng, len(part), self.config.augmentation)

        def extract(rows: Positions) -> torch.Tensor:
            images = part.images(rows, self.world.device)
            spec = self.classifier.spec
            if parameters is None:
                return self.classifier.features(normalise(images, spec))
            return self.classifier.features(standardise(augment.apply(images, parameters.at(rows)), spec))

        label = f"features {view + 1}/{n_views}" if n_views else "features VAL_SELECT"
        return _inference(extract, len(part), self.world, label, self.config.precision)


class ImageTask(_Task):
    """The whole classifier on freshly augmented images."""

    def __init__(
        self, config: TrainBaselineConfig, classifier: Classifier, train: SplitData, select: SplitData, world: World
    ) -> None:
        super().__init__(config, classifier, train, select, world)
        self.module: nn.Module = classifier

    def loss(self, model: nn.Module, positions: Positions, slots: Positions, step: int) -> torch.Tensor:
        """Summed loss of augmented images; the augmentation depends on (seed, step, slot) alone."""
        images = self.train.images(positions, self.world.device)
        spec = self.classifier.spec
        if self.config.augmentation == "none":
            pixels = normalise(images, spec)
        else:
            size = min(self.config.global_batch_size, self.n_samples)
            rng = step_rng(self.config.seed, step, _AUGMENTATION)
            parameters = augment.draw(rng, size, self.config.augmentation).at(slots)
            pixels = standardise(augment.apply(images, parameters), spec)
        return self.cross_entropy(model(pixels, self.keep_mask(slots, step)), positions)

    def evaluate(self) -> dict[str, float]:
        """Metrics on VAL_SELECT."""
        return self.scores(predict(self.classifier, self.select, self.world, precision=self.config.precision))


def predict(
    classifier: Classifier, part: SplitData, world: World, *, precision: str = "fp32", description: str = ""
) -> npt.NDArray[np.float32]:
    """Logits (N, K) float32 of undistorted images in the order of the split's ids, each sample computed once."""

    def logits(rows: Positions) -> torch.Tensor:
        return torch.Tensor(classifier(part.pixels(rows, classifier.spec, world.device)))

    classifier.eval()
    return np.asarray(_inference(logits, len(part), world, description, precision).numpy())


def _inference(
    function: Callable[[Positions], torch.Tensor], count: int, world: World, description: str, precision: str
) -> torch.Tensor:
    """Apply `function` to this rank's rows in batches, gather all ranks' results: (count, ...) float32 on the CPU."""
    rows = np.arange(count, dtype=np.int64)[world.rows(count)]
    batches = np.array_split(rows, max(1, -(-len(rows) // _INFERENCE_BATCH)))
    results = []
    with torch.no_grad(), torch.autocast(world.device.type, torch.bfloat16, enabled=precision == "bf16"):
        for batch in progress(batches, description, quiet=not (world.is_main and description)):
            world.beat()
            results.append(function(batch).float())
    return world.gather_rows(torch.cat(results), count)

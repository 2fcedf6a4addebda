"""The input of self-supervised objectives: augmented and normalised crops of TRAIN images."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from components.pretrain_explora import crop_augmentation
from components.shared.data.train_images import TrainImages
from components.shared.training.loop.read_ahead import ReadAhead
from components.shared.training.loop.sampler import step_rng

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TrainCrops:
    """TRAIN on a device, as crops that are normalised for the backbone.

    Attributes:
        images: The stored images.
        size: Side of full images and large crops in pixels, at most that of the stored images.
        mean: Mean per channel that the backbone expects.
        std: Standard deviation per channel that the backbone expects.
        device: Device of the results.
        labels: (N,) int64 class indices; None if labels are not used.
    """

    images: TrainImages
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    device: torch.device
    labels: torch.Tensor | None = None

    def reader(self) -> ReadAhead:
        """Return the stored images on the device, read ahead by a thread."""
        return ReadAhead(self.images.images, self.images.image_size, self.device)

    def full_images(self, positions: Positions) -> torch.Tensor:
        """Return full images (n, 3, size, size) float32, normalised, without augmentation."""
        images = torch.from_numpy(self.images.images(positions)).to(self.device)
        x_BCHW = images.permute(0, 3, 1, 2).float().div_(255)
        if self.size != x_BCHW.shape[-1]:
            x_BCHW = F.interpolate(x_BCHW, (self.size, self.size), mode="bilinear", antialias=True)
        return self._normalised(x_BCHW)

    def draw(
        self,
        images: torch.Tensor,
        batch_slots: Positions,
        key: tuple[int, int, int],
        size: int,
        kinds: Sequence[str],
        batch_size: int,
    ) -> torch.Tensor:
        """Return a random crop of each kind of each image, functions of `key` and batch slot alone.

        Args:
            images: (n, S, S, 3) uint8 stored images.
            batch_slots: (n,) their positions in the global batch.
            key: (seed, step, stream of the first kind); further kinds have the streams after it.
            size: Side of the crops in pixels.
            kinds: k of `crop_augmentation.KINDS`.
            batch_size: Size of the global batch.

        Returns:
            (k n, 3, size, size) float32, normalised; the crops of an image are adjacent.
        """
        if not kinds:
            return torch.empty((0, 3, size, size), device=self.device)

        seed, step, first_stream = key
        drawn = [
            crop_augmentation.draw(step_rng(seed, step, stream), batch_size, kind)
            for stream, kind in enumerate(kinds, first_stream)
        ]
        parameters = crop_augmentation.CropParameters.adjacent(
            [kind.take(batch_slots) for kind in drawn]
        )
        oversampling = self.images.image_size // self.size
        return self._normalised(
            crop_augmentation.apply(images, parameters, size, oversampling=oversampling)
        )

    def label_loss(self, logits: torch.Tensor, positions: Positions) -> torch.Tensor:
        """Return the cross-entropy, averaged over an image's crops and summed over the images.

        Args:
            logits: (c n, C) for c crops of each image, those of an image adjacent.
            positions: (n,) numbers of the images in TRAIN.
        """
        assert self.labels is not None
        n_crops = len(logits) // len(positions)
        rows = torch.from_numpy(positions).to(logits.device, non_blocking=True)
        labels = self.labels[rows].repeat_interleave(n_crops)
        return F.cross_entropy(logits.float(), labels, reduction="sum") / n_crops

    def _normalised(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        mean, std = self._statistics
        return torch.div(x_BCHW - mean, std)

    @cached_property
    def _statistics(self) -> torch.Tensor:
        """(2, 1, 3, 1, 1) mean and standard deviation, copied to the device once."""
        return torch.tensor([self.mean, self.std], device=self.device).view(2, 1, 3, 1, 1)

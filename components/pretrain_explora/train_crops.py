"""Which pixels does a self-supervised objective see: crops of TRAIN images, distorted and
normalised.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from components.shared.data.train_images import TrainImages
from components.shared.training.loop.sampler import step_rng
from components.shared.vision import augmentation as augment

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pixels:
    """TRAIN on a device, with the mean and standard deviation per channel that the backbone
    expects.

    size: side of whole images and large crops as the backbone sees them, at most the stored
    images'.
    """

    images: TrainImages
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    device: torch.device
    labels: torch.Tensor | None = None  # (N,) int64 class indices, where they may be seen

    def plain(self, positions: Positions) -> torch.Tensor:
        """(n, 3, size, size) float32, normalised, undistorted."""
        x_BCHW = self._raw(positions).permute(0, 3, 1, 2).float().div_(255)
        if self.size != x_BCHW.shape[-1]:
            x_BCHW = F.interpolate(x_BCHW, (self.size, self.size), mode="bilinear", antialias=True)
        return self._normalised(x_BCHW)

    def crops(
        self,
        positions: Positions,
        batch_slots: Positions,
        key: tuple[int, int, int],
        size: int,
        strength: str,
        count: int,
    ) -> torch.Tensor:
        """(n, 3, size, size) float32, normalised: one crop of each image, a function of `key` and
        slot alone.

        key: (seed, step, stream); count: size of the global batch; strength: of augment.STRENGTHS.
        """
        parameters = augment.draw(step_rng(*key), count, strength).take(batch_slots)
        oversampling = self.images.image_size // self.size
        return self._normalised(
            augment.apply(self._raw(positions), parameters, size, oversampling=oversampling)
        )

    def label_loss(self, logits: torch.Tensor, positions: Positions) -> torch.Tensor:
        """Cross-entropy of logits (c n, C), an image's c crops beside each other: their mean,
        summed over images.
        """
        assert self.labels is not None
        crops = len(logits) // len(positions)
        labels = self.labels[torch.from_numpy(positions)].repeat_interleave(crops)
        return F.cross_entropy(logits.float(), labels, reduction="sum") / crops

    def _raw(self, positions: Positions) -> torch.Tensor:
        return torch.from_numpy(self.images.images(positions)).to(self.device)

    def _normalised(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        mean, std = (
            torch.tensor(value, device=x_BCHW.device).view(1, 3, 1, 1)
            for value in (self.mean, self.std)
        )
        return (x_BCHW - mean) / std

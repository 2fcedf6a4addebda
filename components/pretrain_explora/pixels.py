"""Which pixels does a self-supervised objective see: crops of TRAIN images, distorted and normalised."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from components.shared.data import augment
from components.shared.data.train_images import TrainImages
from components.shared.training.sampler import step_rng

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pixels:
    """TRAIN on a device, with the mean and standard deviation per channel that the backbone expects."""

    images: TrainImages
    mean: tuple[float, ...]
    std: tuple[float, ...]
    device: torch.device

    def plain(self, positions: Positions) -> torch.Tensor:
        """(n, 3, S, S) float32, normalised, undistorted."""
        return self._normalised(self._raw(positions).permute(0, 3, 1, 2).float().div_(255))

    def crops(
        self, positions: Positions, slots: Positions, key: tuple[int, int, int], size: int, level: str, count: int
    ) -> torch.Tensor:
        """(n, 3, size, size) float32, normalised: one crop of each image, a function of `key` and slot alone.

        key: (seed, step, stream); count: size of the global batch; level: of augment.LEVELS.
        """
        parameters = augment.draw(step_rng(*key), count, level).at(slots)
        return self._normalised(augment.apply(self._raw(positions), parameters, size))

    def _raw(self, positions: Positions) -> torch.Tensor:
        return torch.from_numpy(self.images.images(positions)).to(self.device)

    def _normalised(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        mean, std = (torch.tensor(value, device=x_BCHW.device).view(1, 3, 1, 1) for value in (self.mean, self.std))
        return (x_BCHW - mean) / std

"""Random masks of patches, each a function of (seed, step, batch slot) alone."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch

# As in iBOT: fraction of the crops that are masked, and the range of the fraction of their patches.
_MASKED_CROPS, _MASKED_PATCHES = 0.5, (0.1, 0.5)
_MIN_BLOCK = 4  # patches
_MIN_ASPECT = 0.3  # of a block, height / width; the largest is its inverse
_N_ATTEMPTS = 20


@dataclass(frozen=True)
class PatchMasks:
    """Which patches of n crops are hidden, on a device; the host knows how many.

    With a mask alone, the host would wait for the device to learn how many patches it selects.

    Attributes:
        hidden: (n, N) bool.
        places: (M,) int64 numbers of the hidden patches among all n N.
        ends: (n + 1,) crop j has the hidden patches ends[j] to ends[j + 1] of the M; on the host.
    """

    hidden: torch.Tensor
    places: torch.Tensor
    ends: npt.NDArray[np.int64]

    @classmethod
    def of(cls, hidden: npt.NDArray[np.bool_], device: torch.device) -> Self:
        """Put masks (n, N) on a device."""
        ends = np.concatenate([[0], hidden.sum(axis=1).cumsum()])
        places = torch.from_numpy(np.flatnonzero(hidden))
        return cls(
            torch.from_numpy(hidden).to(device, non_blocking=True),
            places.to(device, non_blocking=True),
            ends,
        )

    @property
    def counts(self) -> torch.Tensor:
        """(n,) int64 hidden patches of each crop, on the device."""
        counts = torch.from_numpy(np.diff(self.ends))
        return counts.to(self.hidden.device, non_blocking=True)

    def take(self, start: int, stop: int) -> "PatchMasks":
        """Return the masks of the crops `start` to `stop`."""
        first, last = int(self.ends[start]), int(self.ends[stop])
        return PatchMasks(
            self.hidden[start:stop],
            self.places[first:last] - start * self.hidden.shape[1],
            self.ends[start : stop + 1] - first,
        )


def block_mask(key: tuple[int, int, int, int], side: int) -> npt.NDArray[np.bool_]:
    """Return a mask (side * side,) of random blocks, as in BEiT and iBOT; True: hidden.

    With probability 1/2 nothing is hidden.

    Args:
        key: (seed, step, stream, number of the crop in the global batch).
        side: Patches per row and per column.
    """
    rng = np.random.default_rng(key)
    mask = np.zeros((side, side), dtype=np.bool_)
    if rng.random() >= _MASKED_CROPS:
        return mask.ravel()

    wanted = max(1, round(rng.uniform(*_MASKED_PATCHES) * side * side))

    for _ in range(_N_ATTEMPTS):
        missing = wanted - int(mask.sum())
        if missing < min(_MIN_BLOCK, wanted):
            break

        area = rng.uniform(min(_MIN_BLOCK, missing), missing)
        aspect = np.exp(rng.uniform(np.log(_MIN_ASPECT), -np.log(_MIN_ASPECT)))
        height = min(side, max(1, round(np.sqrt(area * aspect))))
        width = min(side, max(1, round(np.sqrt(area / aspect))))
        top, left = rng.integers(side - height + 1), rng.integers(side - width + 1)
        mask[top : top + height, left : left + width] = True

    return mask.ravel()


def random_order(key: tuple[int, int, int], count: int, n_patches: int) -> npt.NDArray[np.int64]:
    """Return a permutation of the patches for every batch slot, (count, n_patches)."""
    return np.argsort(np.random.default_rng(key).random((count, n_patches)), axis=1)

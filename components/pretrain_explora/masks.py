"""Random masks of patches, each a function of (seed, step, batch slot) alone."""

import numpy as np
import numpy.typing as npt

# As in iBOT: fraction of the crops that are masked, and the range of the fraction of their patches.
_MASKED_CROPS, _MASKED_PATCHES = 0.5, (0.1, 0.5)
_MIN_BLOCK = 4  # patches
_MIN_ASPECT = 0.3  # of a block, height / width; the largest is its inverse
_N_ATTEMPTS = 20


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

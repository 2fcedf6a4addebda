"""Which patches are hidden? A function of (seed, step, slot) alone."""

import numpy as np
import numpy.typing as npt

_SHARE_MASKED, _RATIO = 0.5, (0.1, 0.5)  # iBOT: of the crops, and of their patches
_MIN_BLOCK, _ASPECT = 4, 0.3  # patches; smallest height / width
_ATTEMPTS = 20


def block_mask(key: tuple[int, int, int, int], side: int) -> npt.NDArray[np.bool_]:
    """(side * side,) blocks of hidden patches, as in BEiT and iBOT; nothing is hidden in every
    second crop.

    key: (seed, step, stream, place of the crop in the global batch).
    """
    rng = np.random.default_rng(key)
    mask = np.zeros((side, side), dtype=np.bool_)
    if rng.random() >= _SHARE_MASKED:
        return mask.ravel()
    wanted = max(1, round(rng.uniform(*_RATIO) * side * side))
    for _ in range(_ATTEMPTS):
        left = wanted - int(mask.sum())
        if left < min(_MIN_BLOCK, wanted):
            break
        area = rng.uniform(min(_MIN_BLOCK, left), left)
        ratio = np.exp(rng.uniform(np.log(_ASPECT), -np.log(_ASPECT)))
        height = min(side, max(1, round(np.sqrt(area * ratio))))
        width = min(side, max(1, round(np.sqrt(area / ratio))))
        top, start = rng.integers(side - height + 1), rng.integers(side - width + 1)
        mask[top : top + height, start : start + width] = True
    return mask.ravel()


def random_order(key: tuple[int, int, int], count: int, n_patches: int) -> npt.NDArray[np.int64]:
    """(count, n_patches) a permutation of the patches for every place in the global batch."""
    return np.argsort(np.random.default_rng(key).random((count, n_patches)), axis=1)

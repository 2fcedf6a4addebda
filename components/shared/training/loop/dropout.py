"""Masks of dropout, as a function of the sample's slot in the global batch.

Apart from the order of samples, which a step asks for without loading torch.
"""

import numpy as np
import numpy.typing as npt
import torch

from components.shared.vision.noise import normals


def dropout_mask(
    rate: float,
    batch_slots: npt.NDArray[np.int64],
    n_features: int,
    seed: int,
    step: int,
    stream: int,
    device: torch.device,
) -> torch.Tensor | None:
    """Return the mask (n, F) float32 of these slots of a step's global batch, or None at rate 0.

    0 with probability `rate`, else 1 / (1 - rate); each row a function of seed, step, stream and
    slot, with the same bits on every device.
    """
    if rate == 0:
        return None

    counters = np.empty((len(batch_slots), 3), dtype=np.uint32)
    counters[:, 0], counters[:, 1:] = batch_slots, (step, stream)
    quantile = float(torch.special.ndtri(torch.tensor(rate, dtype=torch.float64)))
    kept = normals(seed, counters, n_features, device) >= quantile
    return kept.float().mul_(1 / (1 - rate))

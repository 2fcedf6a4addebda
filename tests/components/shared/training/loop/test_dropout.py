"""Masks of dropout are functions of the slot, and hide at their rate."""

import numpy as np
import torch

from components.shared.training.loop.dropout import dropout_mask

CPU = torch.device("cpu")


def test_a_row_of_a_dropout_mask_depends_on_its_slot_alone() -> None:
    """Not on the micro-batch, nor on the number of processes."""
    whole = dropout_mask(0.3, np.arange(64), 768, 5, 7, 0, CPU)
    part = dropout_mask(0.3, np.array([40, 41, 3]), 768, 5, 7, 0, CPU)
    assert whole is not None
    assert part is not None
    assert torch.equal(part, whole[[40, 41, 3]])
    others = ((5, 8, 0), (6, 7, 0), (5, 7, 1))
    for seed, step, stream in others:
        other = dropout_mask(0.3, np.arange(64), 768, seed, step, stream, CPU)
        assert other is not None
        agreement = float((other == whole).double().mean())
        assert abs(agreement - (0.3**2 + 0.7**2)) < 0.02


def test_a_dropout_mask_hides_its_rate_and_keeps_the_mean() -> None:
    assert dropout_mask(0.0, np.arange(4), 8, 0, 0, 0, CPU) is None
    for rate in (0.1, 0.3, 0.9):
        mask = dropout_mask(rate, np.arange(200), 2048, 1, 2, 0, CPU)
        assert mask is not None
        hidden = (mask == 0).double()
        assert abs(float(hidden.mean()) - rate) < 0.005
        # Rows and columns alike: about as different as independent draws.
        deviation = np.sqrt(rate * (1 - rate))
        assert abs(float(hidden.mean(dim=1).std()) * np.sqrt(2048) / deviation - 1) < 0.2
        assert abs(float(hidden.mean(dim=0).std()) * np.sqrt(200) / deviation - 1) < 0.2
        values = mask[mask > 0]
        assert torch.allclose(values, torch.full_like(values, 1 / (1 - rate)))

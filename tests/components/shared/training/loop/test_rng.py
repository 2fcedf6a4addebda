"""The generators' states go into bytes and back."""

import random

import numpy as np
import pytest
import torch

from components.shared.training.loop import rng


@pytest.mark.parametrize("half", [False, True])
def test_all_generators_go_on_where_they_were(half: bool) -> None:
    if half:  # a second Gaussian is waiting
        random.gauss(0, 1)
        np.random.standard_normal()
    packed = rng.pack(torch.device("cpu"))

    def draws() -> list[float]:
        return [
            random.gauss(0, 1),
            random.random(),
            np.random.standard_normal(),
            float(torch.rand(())),
        ]

    expected = draws()
    rng.restore(packed, torch.device("cpu"))
    assert draws() == expected

"""Masks are blocks of the wanted size, as functions of their key."""

import numpy as np

from components.pretrain_explora import masks


def test_masks_are_blocks_of_the_wanted_size_in_half_of_the_crops() -> None:
    drawn = np.stack(
        [masks.block_mask((0, step, 7, place), 16) for step in range(10) for place in range(40)]
    )
    shares = drawn.mean(axis=1)
    assert 0.4 < (shares > 0).mean() < 0.6
    assert shares[shares > 0].min() > 0.05
    assert shares.max() <= 0.55
    assert 0.2 < shares[shares > 0].mean() < 0.4
    np.testing.assert_array_equal(drawn[41], masks.block_mask((0, 1, 7, 1), 16))

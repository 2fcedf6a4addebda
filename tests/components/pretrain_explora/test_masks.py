"""Masks are functions of their key, hide between a tenth and a half, and leave half the crops."""

import numpy as np

from components.pretrain_explora.masks import block_mask, random_order

SIDE = 16


def test_a_mask_depends_on_its_key_alone() -> None:
    masks = {key: block_mask((0, 1, 2, key), SIDE).tobytes() for key in range(40)}
    assert all(block_mask((0, 1, 2, key), SIDE).tobytes() == mask for key, mask in masks.items())
    assert len(set(masks.values())) > 10


def test_half_of_the_crops_are_masked_by_a_tenth_to_a_half() -> None:
    hidden = np.array([block_mask((7, 0, 0, crop), SIDE).mean() for crop in range(1000)])
    masked = hidden[hidden > 0]
    assert 440 < len(masked) < 560
    assert masked.min() > 0.05
    assert masked.max() < 0.56
    assert 0.2 < masked.mean() < 0.36


def test_every_batch_slot_has_a_permutation_of_its_own() -> None:
    order = random_order((0, 1, 2), 5, 49)
    assert order.shape == (5, 49)
    np.testing.assert_array_equal(np.sort(order, axis=1), np.tile(np.arange(49), (5, 1)))
    assert len({row.tobytes() for row in order}) == 5

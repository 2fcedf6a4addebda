"""The neighbour search is exact, and the hash sees through what does not change the picture."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from components.shared.data.duplicates import components, near_pairs, perceptual_hash


@given(
    base=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=12),
    flips=st.lists(st.tuples(st.integers(0, 11), st.lists(st.integers(0, 63), max_size=12)), max_size=30),
    distance=st.integers(0, 12),
)
def test_banded_search_equals_brute_force(base: list[int], flips: list[tuple[int, list[int]]], distance: int) -> None:
    values = list(base)
    for index, bits in flips:
        value = base[index % len(base)]
        for bit in bits:
            value ^= 1 << bit
        values.append(value)
    hashes = np.array(values, dtype=np.uint64)
    expected = [
        (i, j)
        for i in range(len(values))
        for j in range(i + 1, len(values))
        if (values[i] ^ values[j]).bit_count() <= distance
    ]
    assert [tuple(pair) for pair in near_pairs(hashes, distance).tolist()] == expected


def test_the_hash_survives_size_and_brightness_but_not_another_picture() -> None:
    rng = np.random.default_rng(0)
    first, second = (
        Image.fromarray(rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)).resize((540, 320), Image.Resampling.BICUBIC)
        for _ in range(2)
    )
    original = perceptual_hash(first)
    smaller = perceptual_hash(ImageEnhance.Brightness(first.resize((224, 224))).enhance(0.9))
    assert (original ^ smaller).bit_count() <= 6
    assert (original ^ perceptual_hash(second)).bit_count() > 16


def test_components_join_chains() -> None:
    labels = components(5, np.array([[0, 1], [1, 2], [4, 4]]))
    assert len(set(labels[:3].tolist())) == 1
    assert len(set(labels.tolist())) == 3

"""The neighbour search is exact, and the hash sees through what does not change the picture."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from components.shared.data import duplicates
from components.shared.data.duplicates import (
    connected_components,
    near_pairs,
    nearest_links,
    perceptual_hashes,
    thumbnail,
)


@st.composite
def _hash_lists(draw: st.DrawFn) -> np.ndarray:
    """Values with many near neighbours: a few bases, each with some bits flipped."""
    values = draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=8))
    for index, bits in draw(
        st.lists(st.tuples(st.integers(0, 7), st.lists(st.integers(0, 63), max_size=18)))
    ):
        value = values[index % len(values)]
        for bit in bits:
            value ^= 1 << bit
        values.append(value)
    return np.array(values, dtype=np.uint64)


def _brute_force(hashes: np.ndarray, distance: int) -> dict[tuple[int, int], int]:
    pairs = itertools.combinations(range(len(hashes)), 2)
    distances = {(i, j): (int(hashes[i]) ^ int(hashes[j])).bit_count() for i, j in pairs}
    return {pair: d for pair, d in distances.items() if d <= distance}


@given(hashes=_hash_lists(), distance=st.integers(0, 16))
def test_banded_search_equals_brute_force(hashes: np.ndarray, distance: int) -> None:
    found = [tuple(pair) for chunk in near_pairs(hashes, distance) for pair in chunk.tolist()]
    assert sorted(found) == sorted(_brute_force(hashes, distance))


def test_banded_search_equals_brute_force_in_small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_PAIR_CHUNK", 7)
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2**64, 6, dtype=np.uint64)
    hashes = base[rng.integers(0, 6, 60)] ^ (
        np.uint64(1) << rng.integers(0, 64, 60).astype(np.uint64)
    )
    expected = _brute_force(hashes, 4)
    found = [tuple(pair) for chunk in near_pairs(hashes, 4) for pair in chunk.tolist()]
    assert sorted(found) == sorted(expected)
    links, distances = nearest_links(hashes, 4)
    assert all(
        expected[i, j] == d for (i, j), d in zip(links.tolist(), distances.tolist(), strict=True)
    )


@given(hashes=_hash_lists(), distance=st.integers(0, 12))
def test_links_hold_the_same_sets_together_as_all_pairs(hashes: np.ndarray, distance: int) -> None:
    expected = _brute_force(hashes, distance)
    links, distances = nearest_links(hashes, distance)
    assert all(
        expected[i, j] == d for (i, j), d in zip(links.tolist(), distances.tolist(), strict=True)
    )
    of_all = connected_components(
        len(hashes), np.array(sorted(expected), dtype=np.int64).reshape(-1, 2)
    )
    of_links = connected_components(len(hashes), links)
    assert of_links.tolist() == of_all.tolist()
    assert len(links) == len(hashes) - len(set(of_all.tolist()))  # no link is superfluous


def _scene(seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((540, 320), Image.Resampling.BICUBIC)


def _hashes(*images: Image.Image) -> np.ndarray:
    return perceptual_hashes(np.stack([thumbnail(np.asarray(image)) for image in images]))


def test_the_hash_survives_size_and_brightness_but_not_another_picture() -> None:
    scene = _scene(0)
    darker = ImageEnhance.Brightness(scene.resize((224, 224))).enhance(0.8)
    same, other = np.bitwise_count(
        _hashes(scene, scene, scene) ^ _hashes(scene, darker, _scene(1))
    )[1:]
    assert same <= 4
    assert other > 16


def test_blank_images_of_any_brightness_have_one_hash() -> None:
    blanks = [Image.new("RGB", (64, 48), (grey, grey, grey)) for grey in (0, 7, 100, 133, 255)]
    assert len(set(_hashes(*blanks).tolist())) == 1


def test_components_join_chains() -> None:
    labels = connected_components(5, np.array([[0, 1], [1, 2], [4, 4]]))
    assert len(set(labels[:3].tolist())) == 1
    assert len(set(labels.tolist())) == 3

"""Philox against published values; noise against the normal distribution; one row, any batch."""

import numpy as np
import pytest
import torch
from scipy import stats

from components.shared.vision.noise import normals, philox, words_of

CPU = torch.device("cpu")
# Random123's tests/kat_vectors, lines "philox4x32 10": counter, key, result.
PUBLISHED = [
    (
        "00000000 00000000 00000000 00000000",
        "00000000 00000000",
        "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    ),
    (
        "ffffffff ffffffff ffffffff ffffffff",
        "ffffffff ffffffff",
        "408f276d 41c83b0e a20bc7c6 6d5451fd",
    ),
    (
        "243f6a88 85a308d3 13198a2e 03707344",
        "a4093822 299f31d0",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


def _words(text: str) -> np.ndarray:
    return np.array([int(word, 16) for word in text.split()], dtype=np.uint32)


@pytest.mark.parametrize(("counter", "key", "expected"), PUBLISHED)
def test_philox_is_the_published_one(counter: str, key: str, expected: str) -> None:
    np.testing.assert_array_equal(philox(_words(counter)[None], _words(key)), [_words(expected)])


def test_a_call_for_many_counters_and_keys_is_many_calls() -> None:
    counters, keys = (np.stack([_words(row[i]) for row in PUBLISHED]) for i in (0, 1))
    np.testing.assert_array_equal(philox(counters, keys), [_words(row[2]) for row in PUBLISHED])
    assert words_of(np.array([-1, 2**33 + 5])).tolist() == [[2**32 - 1] * 2, [5, 2]]


def _noise(n: int, length: int, seed: int = 3, step: int = 0) -> torch.Tensor:
    counters = np.zeros((n, 3), dtype=np.uint32)
    counters[:, 0], counters[:, 1] = np.arange(n), step
    return normals(seed, counters, length, CPU)


def test_numbers_are_normal_at_every_place_and_in_every_row() -> None:
    found = _noise(40, 10_000).double().numpy()
    assert abs(found.mean()) < 4 / np.sqrt(found.size)
    assert abs(found.var() - 1) < 4 * np.sqrt(2 / found.size)
    # Of each row, and of each place over many rows.
    values = [stats.kstest(row, "norm").pvalue for row in found]
    values += [stats.kstest(column, "norm").pvalue for column in _noise(2000, 8).numpy().T]
    assert min(values) > 0.01 / len(values)


def test_neighbours_rows_seeds_and_steps_are_uncorrelated() -> None:
    length = 50_000
    row, other = _noise(2, length).double()
    pairs = [
        (row[:-1], row[1:]),
        (row[:-224], row[224:]),
        (row, other),
        (row, _noise(1, length, seed=4).double()[0]),
        (row, _noise(1, length, step=1).double()[0]),
    ]
    for first, second in pairs:
        assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.025


def test_a_row_does_not_depend_on_the_others_and_a_beginning_not_on_the_length() -> None:
    counters = np.arange(30, dtype=np.uint32).reshape(10, 3)
    seeds = np.arange(10, dtype=np.int64) * 2**40
    whole = normals(seeds, counters, 9000, CPU)
    part = normals(seeds[[7, 2]], counters[[7, 2]], 9000, CPU)
    assert torch.equal(part, whole[[7, 2]])
    assert torch.equal(normals(seeds, counters, 5000, CPU), whole[:, :5000])


def test_numbers_never_change() -> None:
    """Trainings go on with them, and robustness is compared with that of earlier runs."""
    found = normals(0, np.zeros((1, 3), dtype=np.uint32), 3, CPU)
    assert found[0].tolist() == pytest.approx([0.239456, -1.737088, -0.922714], abs=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_has_the_same_bits() -> None:
    counters = np.arange(30, dtype=np.uint32).reshape(10, 3)
    found = [
        normals(np.arange(10), counters, 9000, device) for device in (CPU, torch.device("cuda", 0))
    ]
    assert torch.equal(found[0], found[1].cpu())

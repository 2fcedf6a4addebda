"""Speed of the banded search for near-duplicates among 20,000 hashes against all pairs.

The peer is brute force as it is usually written with numpy: each hash against all later ones, XOR
and population count. Both must find the same pairs.
"""

import numpy as np

from components.ingest_dataset.config import IngestConfig
from components.shared.data.duplicates import Hashes, Pairs, near_pairs
from tests.bench.measure import Result, interleaved

_N_HASHES, _N_NEAR = 20_000, 500


def run() -> list[Result]:
    """One result at the default distance; both lists of pairs are compared first."""
    hashes, distance = _hashes(), IngestConfig().near_duplicate_distance
    assert np.array_equal(_search(hashes, distance), _brute_force(hashes, distance))
    seconds = interleaved(
        lambda: _search(hashes, distance),
        lambda: _brute_force(hashes, distance),
        rounds=5,
        ours_per_round=3,
    )
    return [
        Result(
            f"near-duplicate search, 20k hashes, {distance} bits",
            "numpy, all pairs",
            *seconds,
            goal=6,
        )
    ]


def _hashes() -> Hashes:
    """Return random hashes with 32 set bits, some of them repeated with up to 10 changed bits."""
    rng = np.random.default_rng(0)
    bits = rng.random((_N_HASHES, 64)).argsort(axis=1) < 32
    for row in range(_N_NEAR):
        bits[row] = bits[-1 - row]
        bits[row, rng.choice(64, size=row % 11, replace=False)] ^= True
    return np.packbits(bits, axis=1).view(np.uint64).ravel()


def _search(hashes: Hashes, distance: int) -> Pairs:
    pairs = np.concatenate([np.empty((0, 2), dtype=np.int64), *near_pairs(hashes, distance)])
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _brute_force(hashes: Hashes, distance: int) -> Pairs:
    found = []
    for i in range(len(hashes) - 1):
        close = np.flatnonzero(np.bitwise_count(hashes[i] ^ hashes[i + 1 :]) <= distance)
        if len(close):
            found.append(np.column_stack([np.full(len(close), i), close + i + 1]))
    return np.concatenate(found)

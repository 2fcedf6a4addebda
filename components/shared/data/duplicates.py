"""Which images show the same picture? A perceptual hash and an exact neighbour search in Hamming space."""

import itertools

import numpy as np
import numpy.typing as npt
from PIL import Image

HASH_BITS = 64
_DCT_SIZE = 32
_KEPT = 8

Hashes = npt.NDArray[np.uint64]


def perceptual_hash(image: Image.Image | npt.NDArray[np.uint8]) -> int:
    """64-bit DCT hash: signs of the 8x8 lowest frequencies of the 32x32 grey image against their median."""
    from scipy.fft import dctn

    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    grey = picture.convert("L").resize((_DCT_SIZE, _DCT_SIZE), Image.Resampling.BILINEAR)
    low = dctn(np.asarray(grey, dtype=np.float64), norm="ortho")[:_KEPT, :_KEPT].ravel()
    bits = low > np.median(low[1:])  # the first coefficient is the mean brightness
    return int(np.packbits(bits).view(">u8")[0])


def near_pairs(hashes: Hashes, max_distance: int) -> npt.NDArray[np.int64]:
    """All pairs (P, 2) int64, i < j, sorted, whose hashes (N,) uint64 differ in at most `max_distance` bits.

    Exact: with max_distance + 1 bands of bits, two such hashes agree in at least one band (pigeonhole), so that only
    members of equal bands are compared.
    """
    edges = np.linspace(0, HASH_BITS, max_distance + 2).astype(np.int64)
    found = [_band_pairs(hashes, int(low), int(high), max_distance) for low, high in itertools.pairwise(edges)]
    pairs = np.concatenate(found) if found else np.empty((0, 2), dtype=np.int64)
    return np.unique(pairs, axis=0)


def _band_pairs(hashes: Hashes, low: int, high: int, max_distance: int) -> npt.NDArray[np.int64]:
    """Pairs within the distance among hashes whose bits low..high are equal."""
    mask = (1 << (high - low)) - 1
    band = (hashes >> np.uint64(low)) & np.uint64(mask)
    order = np.argsort(band, kind="stable").astype(np.int64)
    starts = np.flatnonzero(np.r_[True, band[order][1:] != band[order][:-1]])
    sizes = np.diff(np.r_[starts, len(order)])
    end_of_run = np.repeat(starts + sizes, sizes)
    results = []
    # Member k of every run against member k + offset: vectorised over runs, one pass per offset within the longest run.
    for offset in range(1, int(sizes.max(initial=1))):
        first = np.flatnonzero(np.arange(len(order)) + offset < end_of_run)
        left, right = order[first], order[first + offset]
        close = np.bitwise_count(hashes[left] ^ hashes[right]) <= max_distance
        results.append(np.column_stack([left[close], right[close]]))
    if not results:
        return np.empty((0, 2), dtype=np.int64)
    return np.sort(np.concatenate(results), axis=1)


def components(count: int, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Connected component (N,) int64 of each of `count` nodes joined by `pairs` (P, 2)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)

"""Random numbers that are functions of counters, with the same bits on every device.

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) tells where in
a table each run of numbers begins. The table has the 2^20 quantiles of the standard normal
distribution, in an order by Philox too; it is made once, on the CPU, and copied to the device,
which then only copies from it. Integers and floats are therefore equal bit for bit on CPU and GPU,
where logarithms and cosines are not.

Why not Philox for every number: in torch's integer operations it takes a hundred passes over the
noise, which on a CPU is slower than torch's own generator, and on a GPU a hundred kernels.
"""

import functools

import numpy as np
import numpy.typing as npt
import torch

Words = npt.NDArray[np.uint32]

_ROUNDS = 10
_MULTIPLIERS = np.array([0xD2511F53, 0xCD9E8D57], dtype=np.uint64)
_WEYL = np.array([0x9E3779B9, 0xBB67AE85], dtype=np.uint32)

_LOG2_TABLE = 20
_RUN = 4096  # numbers that follow each other in the table
_TABLE_KEY = (0x5EED, 0)


def philox(counters: Words, keys: Words) -> Words:
    """Return the four words of Philox4x32-10 for each counter.

    Args:
        counters: (n, 4) uint32.
        keys: (n, 2) uint32, or (2,) for all.

    Returns:
        (n, 4) uint32.
    """
    first, second, third, fourth = counters.T.astype(np.uint32)
    key = np.array(np.atleast_2d(keys).T, dtype=np.uint32)
    for number in range(_ROUNDS):
        if number:
            key = key + _WEYL[:, None]
        left, right = _MULTIPLIERS[0] * first, _MULTIPLIERS[1] * third
        first = (right >> np.uint64(32)).astype(np.uint32) ^ second ^ key[0]
        third = (left >> np.uint64(32)).astype(np.uint32) ^ fourth ^ key[1]
        second, fourth = right.astype(np.uint32), left.astype(np.uint32)
    return np.stack([first, second, third, fourth], axis=1)


def words_of(values: npt.NDArray[np.int64] | int) -> Words:
    """Return the low and the high 32 bits of int64 values (...): (..., 2) uint32."""
    unsigned = np.asarray(values, dtype=np.int64).astype(np.uint64)
    return np.stack([unsigned, unsigned >> np.uint64(32)], axis=-1).astype(np.uint32)


def normals(
    seeds: npt.NDArray[np.int64] | int, counters: Words, length: int, device: torch.device
) -> torch.Tensor:
    """Return standard normal numbers, a function of seed and counter alone.

    Args:
        seeds: (n,) int64, or one for all: the key of Philox.
        counters: (n, 3) uint32; with the number of a run of 4,096 numbers, the counter of Philox.
        length: Numbers for each counter.
        device: Device of the result.

    Returns:
        (n, length) float32, with the same bits on every device.
    """
    run = min(_RUN, length)
    n_runs = -(-length // run)
    starts = _starts(words_of(seeds), counters, n_runs)
    windows = _table(device).unfold(0, run, 1)
    index = torch.from_numpy(starts.ravel()).to(device, non_blocking=True)
    return windows.index_select(0, index).view(len(starts), n_runs * run)[:, :length]


def _starts(keys: Words, counters: Words, n_runs: int) -> npt.NDArray[np.int64]:
    """Return where in the table each run begins, (n, n_runs): one word of Philox for each."""
    n_calls = -(-n_runs // 4)
    calls = np.arange(n_calls, dtype=np.uint32)
    full = np.empty((len(counters), n_calls, 4), dtype=np.uint32)
    full[:, :, 0], full[:, :, 1:] = calls, counters[:, None]
    if keys.ndim > 1:
        keys = np.repeat(keys, n_calls, axis=0)

    words = philox(full.reshape(-1, 4), keys).reshape(len(counters), -1)[:, :n_runs]
    return (words >> np.uint32(32 - _LOG2_TABLE)).astype(np.int64)


@functools.cache
def _table(device: torch.device) -> torch.Tensor:
    """Return the table on a device, (2^20 + 4095,) float32; its end is its beginning again."""
    if device.type != "cpu":
        return _table(torch.device("cpu")).to(device)

    count = 2**_LOG2_TABLE
    counters = np.zeros((count // 4, 4), dtype=np.uint32)
    counters[:, 0] = np.arange(count // 4)
    keys = philox(counters, np.array(_TABLE_KEY, dtype=np.uint32)).ravel()
    order = np.argsort(keys, kind="stable")  # some keys are equal

    levels = (torch.from_numpy(order).double() + 0.5) / count
    values = torch.special.ndtri(levels).float()
    return torch.cat([values, values[: _RUN - 1]])

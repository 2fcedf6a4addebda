"""Samples of the global batch of any step, as a pure function of seed and step.

A pure function of (seed, step): any step can be addressed without replaying the ones before it, on
any number of processes. Exact resume and independence of the number of processes rest on it.
"""

import functools

import numpy as np
import numpy.typing as npt


def steps_per_epoch(n_samples: int, global_batch_size: int) -> int:
    """Return the number of full global batches in one pass.

    The remainder of a permutation is left out, another one each epoch.
    """
    return max(1, n_samples // global_batch_size)


def global_batch(
    n_samples: int, global_batch_size: int, seed: int, step: int, stream: int = 0
) -> npt.NDArray[np.int64]:
    """Return positions (B,) int64 of the samples of `step`, without repetition.

    B = min(global_batch_size, n_samples). Every `stream` goes through all samples in an order of
    its own.
    """
    epoch, index = divmod(step, steps_per_epoch(n_samples, global_batch_size))
    size = min(global_batch_size, n_samples)
    return _permutation(n_samples, seed, epoch, stream)[index * size : (index + 1) * size]


def step_rng(seed: int, step: int, stream: int) -> np.random.Generator:
    """Return the generator of one step and purpose.

    Its numbers are drawn for the whole global batch and sliced by every rank.
    """
    return np.random.default_rng([seed, step, stream])


@functools.lru_cache(maxsize=4)
def _permutation(n_samples: int, seed: int, epoch: int, stream: int) -> npt.NDArray[np.int64]:
    key = [seed, epoch, n_samples, stream] if stream else [seed, epoch, n_samples]
    return np.random.default_rng(key).permutation(n_samples)

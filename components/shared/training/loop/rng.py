"""States of this process's random number generators, as one row of bytes and back.

The loop derives randomness from (seed, step); these states are for libraries that draw from the
global generators.
"""

import random
import struct

import numpy as np
import torch

_PYTHON = struct.Struct("<625I?d")  # Mersenne twister, whether a second Gaussian waits, and which
_NUMPY = struct.Struct("<624IIId")  # key, position, the same two


def pack(device: torch.device) -> torch.Tensor:
    """Return the states of Python's, numpy's and torch's generators: (n,) uint8 on `device`.

    With the GPU's state where `device` is one.
    """
    _, words, waiting = random.getstate()
    legacy = np.random.get_state(legacy=False)
    state = legacy["state"]
    parts = [
        np.frombuffer(_PYTHON.pack(*words, waiting is not None, waiting or 0.0), dtype=np.uint8),
        np.frombuffer(
            _NUMPY.pack(*state["key"].tolist(), state["pos"], legacy["has_gauss"], legacy["gauss"]),
            dtype=np.uint8,
        ),
        torch.get_rng_state().numpy(),
    ]
    if device.type == "cuda":
        parts.append(torch.cuda.get_rng_state(device).numpy())

    return torch.from_numpy(np.concatenate(parts)).to(device)


def restore(packed: torch.Tensor, device: torch.device) -> None:
    """Set the generators to the states that `pack` returned on a device of the same type."""
    data = packed.cpu().numpy()
    python, data = data[: _PYTHON.size].tobytes(), data[_PYTHON.size :]
    legacy, data = data[: _NUMPY.size].tobytes(), data[_NUMPY.size :]
    *words, waits, waiting = _PYTHON.unpack(python)
    random.setstate((3, tuple(words), waiting if waits else None))
    *key, position, has_gauss, gauss = _NUMPY.unpack(legacy)
    np.random.set_state(("MT19937", np.array(key, dtype=np.uint32), position, has_gauss, gauss))
    n_torch = len(torch.get_rng_state())
    torch.set_rng_state(torch.from_numpy(data[:n_torch].copy()))
    if device.type == "cuda":
        torch.cuda.set_rng_state(torch.from_numpy(data[n_torch:].copy()), device)

"""Utilisation, memory, power and temperature of a GPU, sampled by a thread while others work."""

import threading
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from components.shared.contracts.errors import one_line
from components.shared.contracts.listing import say

__all__ = ["USAGE", "GpuMonitor"]

# Values of an epoch: the mean over samples, of memory and temperature the largest.
USAGE = ("gpu/busy_fraction", "gpu/memory_gib", "gpu/power_watts", "gpu/temperature_celsius")
_LARGEST = (1, 3)
_EVERY_SECONDS = 1.0

Sample = tuple[float, float, float, float]
Values = npt.NDArray[np.float64]


def read_gpu(device: torch.device) -> Sample:
    """Return what NVML says of a GPU now, in the units of USAGE.

    torch asks nvidia-ml-py, for the GPU that the device is among the visible ones.
    """
    return (
        torch.cuda.utilization(device) / 100,  # percent of the last 1/6 to 1 s
        torch.cuda.device_memory_used(device) / 2**30,
        torch.cuda.power_draw(device) / 1000,  # milliwatts
        float(torch.cuda.temperature(device)),
    )


class GpuMonitor:
    """Samples a GPU each second, from its construction to `close`.

    Where NVML cannot be asked (no library, a part of a GPU), there are no samples and a line says
    why: training goes on.
    """

    def __init__(self, device: torch.device, read: Callable[[torch.device], Sample] = read_gpu):
        self._device, self._read = device, read
        self._samples: list[Sample] = []
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="gpu-monitor", daemon=True)
        if self._sample():
            self._thread.start()

    def take(self) -> Values:
        """Return the values (4,) since they were last taken, as USAGE; NaN without a sample."""
        if self._thread.is_alive():
            self._sample()  # so that the shortest epoch has one
        with self._lock:
            samples, self._samples = np.array(self._samples).reshape(-1, len(USAGE)), []
        if not len(samples):
            return np.full(len(USAGE), np.nan)

        values = samples.mean(axis=0)
        values[list(_LARGEST)] = samples.max(axis=0)[list(_LARGEST)]
        return np.asarray(values)

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(_EVERY_SECONDS) and self._sample():
            pass

    def _sample(self) -> bool:
        try:
            sample = self._read(self._device)
        # NVML's errors have no common base that can be imported without the library.
        except Exception as error:
            say(f"warning: the GPU is not monitored: {type(error).__name__}: {one_line(error)}")
            return False
        with self._lock:
            self._samples.append(sample)
        return True

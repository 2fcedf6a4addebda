"""The monitor of a GPU, on readings that stand for those of NVML.

`torch.cuda` reads them through nvidia-ml-py; a test below compares the names that torch uses with
the package's, where it is installed. No reading of a real card is tested here: `make test-gpu`.
"""

import inspect
import threading
import time

import numpy as np
import pytest
import torch

from components.shared.training.loop import gpu_monitor
from components.shared.training.loop.gpu_monitor import USAGE, GpuMonitor, read_gpu

DEVICE = torch.device("cuda", 0)


def test_readings_have_the_units_of_the_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch gives percent, bytes, milliwatts and degrees Celsius."""
    readings = {"utilization": 40, "device_memory_used": 3 * 2**30, "power_draw": 250_500}
    for name, value in (readings | {"temperature": 61}).items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert read_gpu(DEVICE) == (0.4, 3.0, 250.5, 61.0)
    assert [name.split("_")[-1] for name in USAGE] == ["fraction", "gib", "watts", "celsius"]


def test_a_thread_samples_until_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_monitor, "_EVERY_SECONDS", 0.005)
    seen = iter(range(1, 10**6))

    def read(device: torch.device) -> tuple[float, float, float, float]:
        value = float(next(seen))
        return value, value, value, value

    monitor = GpuMonitor(DEVICE, read)
    deadline = time.monotonic() + 10
    while next(seen) < 20 and time.monotonic() < deadline:
        time.sleep(0.005)
    first = monitor.take()
    # Of time and power the mean, of memory and temperature the largest.
    assert first[0] == first[2] < first[1] == first[3]
    assert monitor.take()[0] > first[1]  # each sample counts once
    monitor.close()
    assert "gpu-monitor" not in {thread.name for thread in threading.enumerate()}


def test_the_shortest_epoch_has_a_sample() -> None:
    monitor = GpuMonitor(DEVICE, lambda device: (0.5, 1.0, 2.0, 3.0))
    assert monitor.take().tolist() == [0.5, 1.0, 2.0, 3.0]
    assert monitor.take().tolist() == [0.5, 1.0, 2.0, 3.0]
    monitor.close()


@pytest.mark.parametrize("n_good", [0, 1])
def test_a_gpu_that_cannot_be_asked_is_one_line_and_no_sample(
    n_good: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of a part of a card (MIG), whose utilisation NVML does not know."""
    answers = iter([(0.5, 1.0, 2.0, 3.0)] * n_good)

    def read(device: torch.device) -> tuple[float, float, float, float]:
        for answer in answers:
            return answer
        raise RuntimeError("Not Supported")

    monitor = GpuMonitor(DEVICE, read)
    monitor.take()
    assert np.isnan(monitor.take()).all() or n_good
    monitor.close()
    assert "warning: the GPU is not monitored: RuntimeError: Not Supported" in (
        capsys.readouterr().out
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_driver_or_without_the_library_training_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    monitor = GpuMonitor(DEVICE)
    assert np.isnan(monitor.take()).all()
    monitor.close()
    assert capsys.readouterr().out.count("warning: the GPU is not monitored") == 1


def test_torch_calls_the_library_by_names_that_it_has() -> None:
    library = pytest.importorskip("pynvml")
    functions = (
        torch.cuda.utilization,
        torch.cuda.device_memory_used,
        torch.cuda.power_draw,
        torch.cuda.temperature,
        torch.cuda._get_pynvml_handler,
    )
    sources = "".join(inspect.getsource(function) for function in functions)
    names = {word.split("(")[0] for word in sources.replace("pynvml.", " nvml:").split()}
    called = {name.removeprefix("nvml:") for name in names if name.startswith("nvml:nvml")}
    assert len(called) >= 6
    assert all(callable(getattr(library, name)) for name in called)
    assert list(inspect.signature(library.nvmlDeviceGetTemperature).parameters)[1] == "sensor"

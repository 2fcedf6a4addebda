"""What a training took of the machine: epochs, the warning, metrics, and the page.

Readings of a GPU are planted in place of NVML's (`gpu_monitor.read_gpu`).
"""

import base64
import gzip
import re
from pathlib import Path

import pytest
import torch

from components.shared.training.loop import measurements as module
from components.shared.training.loop.distributed import World
from components.shared.training.loop.gpu_monitor import USAGE, GpuMonitor
from components.shared.training.loop.measurements import Measurements
from components.shared.training.session.fit import fit
from tests.components.shared.training import toy


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> World:
    """A rank whose GPU is busy for half of the time."""
    monkeypatch.setattr(
        module, "GpuMonitor", lambda device: GpuMonitor(device, lambda _: (0.5, 12.0, 240.0, 66.0))
    )
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: False)
    return World(0, 1, torch.device("cuda", 0))


class _Clock:
    """Seconds that the test lets pass."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


def _epoch(world: World, monkeypatch: pytest.MonkeyPatch, **seconds: float) -> Measurements:
    """An epoch of ten seconds, of which the host spent some in parts of the steps."""
    clock = _Clock()
    monkeypatch.setattr(module, "time", clock)
    measurements = Measurements(world)
    measurements.begin(10)
    monkeypatch.setattr(
        world.timings, "take", lambda: {"data": 0.0, "communication": 0.0} | seconds
    )
    clock.now = 10.0
    measurements.end_epoch(3)
    measurements.close()
    return measurements


@pytest.mark.parametrize(
    ("seconds", "cause"),
    [
        ({"data": 4.0}, "data (data 40%, communication 0%, host 10%"),
        ({"communication": 3.0, "data": 1.0}, "communication (data 10%, communication 30%"),
        ({"data": 1.0}, "host (data 10%, communication 0%, host 40%"),
    ],
)
def test_a_gpu_that_idles_is_a_warning_with_the_cause(
    on_gpu: World,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    seconds: dict[str, float],
    cause: str,
) -> None:
    _epoch(on_gpu, monkeypatch, **seconds)
    line = capsys.readouterr().out.strip()
    assert line.startswith(f"warning: the GPU was idle for 50% of epoch 3; cause: {cause}")


def test_a_busy_gpu_is_no_warning(
    on_gpu: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        module, "GpuMonitor", lambda device: GpuMonitor(device, lambda _: (0.81, 1.0, 1.0, 1.0))
    )
    _epoch(on_gpu, monkeypatch)
    assert not capsys.readouterr().out


def test_the_history_has_the_usage_where_equal_trainings_may_differ(
    on_gpu: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    measurements = _epoch(on_gpu, monkeypatch)
    history = [{"epoch": 2.0, "loss": 0.2}, {"epoch": 3.0, "loss": 0.1}]
    rows = measurements.joined(history)
    assert rows[1] == history[1] | dict(zip(USAGE, (0.5, 12.0, 240.0, 66.0), strict=True))
    # An epoch before the training was interrupted.
    assert list(rows[0]) == list(rows[1])
    assert rows[0][USAGE[0]] != rows[0][USAGE[0]]

    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert measurements.joined(history) is history


def test_the_page_of_a_gpu_has_a_row_for_each_epoch(
    on_gpu: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _epoch(on_gpu, monkeypatch).write(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    row = "<th>3</th><td>10.0</td><td>50 %</td><td>12.0</td><td>240</td><td>66</td>"
    assert row in text
    assert "profile=true" in text


def test_a_cpu_measures_nothing_so_that_equal_trainings_write_equal_pages(
    world: World, tmp_path: Path
) -> None:
    pages = []
    for name in ("one", "two"):
        measurements = Measurements(world)
        fit(toy.Toy(world), toy.config(epochs=1), world, measurements=measurements)
        measurements.write(tmp_path / name)
        pages.append((tmp_path / name).read_bytes())
    assert pages[0] == pages[1]


def test_a_profiled_training_has_the_same_weights_and_its_page_the_trace(
    world: World, tmp_path: Path
) -> None:
    plain, _ = toy.train(world, {"epochs": 4})
    measurements, task = Measurements(world, profile=True), toy.Toy(world)
    fit(task, toy.config(epochs=4), world, measurements=measurements)
    for name, value in plain.module.state_dict().items():
        assert torch.equal(value, task.module.state_dict()[name])

    measurements.write(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    for part in ("forward", "backward", "optimizer", "communication", "data", "idle"):
        assert f"<tr><th>{part}</th>" in text
    found = re.search(r'download="trace.json.gz" href="data:application/gzip;base64,([^"]+)"', text)
    assert found is not None
    assert b"ProfilerStep#" in gzip.decompress(base64.b64decode(found[1]))
    assert "trainer.py" in text  # a function of the host


def test_another_rank_than_the_first_is_not_profiled(tmp_path: Path) -> None:
    measurements = Measurements(World(1, 2, torch.device("cpu")), profile=True)
    measurements.begin(30)
    with measurements.step():
        pass
    measurements.write(tmp_path / "page.html")
    assert "profile=true" in (tmp_path / "page.html").read_text(encoding="utf-8")

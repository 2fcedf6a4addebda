"""STREETVISION_DEVICE decides where models compute, in one place."""

import pytest
import torch

from components.shared.contracts.errors import ConfigError
from components.shared.training.launch.device import device_type, n_gpus


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand for a machine with two GPUs: PyTorch's answers, without the GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand for a machine without a GPU, on a machine that may have one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_the_suite_computes_on_the_cpu_on_every_machine(two_gpus: None) -> None:
    assert device_type() == "cpu"


@pytest.mark.parametrize(
    ("value", "expected"), [("cpu", ("cpu", 0)), ("auto", ("cuda", 2)), ("cuda", ("cuda", 2))]
)
def test_where_there_are_gpus_the_variable_decides(
    two_gpus: None, monkeypatch: pytest.MonkeyPatch, value: str, expected: tuple[str, int]
) -> None:
    monkeypatch.setenv("STREETVISION_DEVICE", value)
    assert (device_type(), n_gpus()) == expected


@pytest.mark.parametrize("value", ["", "auto"])
def test_auto_is_the_default_and_takes_the_cpu_without_a_gpu(
    no_gpu: None, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("STREETVISION_DEVICE", value)
    assert (device_type(), n_gpus()) == ("cpu", 0)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("cuda", "STREETVISION_DEVICE=cuda: .*use cpu or auto"),
        ("gpu", "STREETVISION_DEVICE='gpu' must be one of auto, cpu, cuda"),
    ],
)
def test_a_device_that_is_not_there_is_an_error(
    no_gpu: None, monkeypatch: pytest.MonkeyPatch, value: str, message: str
) -> None:
    monkeypatch.setenv("STREETVISION_DEVICE", value)
    with pytest.raises(ConfigError, match=message):
        device_type()

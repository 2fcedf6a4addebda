"""The kind of device that computes: CPU or CUDA, as STREETVISION_DEVICE says."""

import os

from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError
from components.shared.contracts.listing import shown

__all__ = ["device_type", "n_gpus"]

_CHOICES = ("auto", "cpu", "cuda")


def device_type() -> str:
    """Return "cpu" or "cuda"; `auto`, the default, is CUDA where PyTorch finds a GPU.

    Raises:
        ConfigError: STREETVISION_DEVICE has another value, or is `cuda` where there is no GPU.
    """
    choice = os.environ.get(Variable.DEVICE) or "auto"
    if choice not in _CHOICES:
        raise ConfigError(f"{Variable.DEVICE}={shown(choice)} must be one of {', '.join(_CHOICES)}")
    if choice == "cpu":
        return "cpu"

    # Not above: a step that only starts the processes loads torch for this alone.
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if choice == "cuda":
        build = "this build of PyTorch has no CUDA"
        reason = "PyTorch finds no GPU" if torch.version.cuda else build
        raise ConfigError(f"{Variable.DEVICE}=cuda: {reason}; use cpu or auto, or another machine")
    return "cpu"


def n_gpus() -> int:
    """Return the number of GPUs to compute on: 0 on the CPU. Raises as `device_type`."""
    if device_type() == "cpu":
        return 0

    import torch

    return torch.cuda.device_count()

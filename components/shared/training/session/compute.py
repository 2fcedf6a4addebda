"""How a rank computes: what `auto` means on its device, what is refused, and PyTorch's switches."""

import dataclasses
import importlib.util
import os
import shutil
from typing import TypeVar

import torch

from components.shared.contracts.errors import ConfigError
from components.shared.contracts.options import ComputeConfig
from components.shared.vision.arithmetic import use_tf32

__all__ = ["prepare_computation", "refused_by_determinism", "resolved", "shown_computation"]

C = TypeVar("C", bound=ComputeConfig)

_AMPERE = (8, 0)  # compute capability of the first GPUs with TensorFloat-32 and bfloat16
# Of CUDA: triton compiles a launcher for each kernel; of CPUs: the kernels themselves are C++.
_COMPILERS = ("cc", "gcc", "clang", "g++", "c++")
# What torch says of an operation that it would have to compute in any order.
_NO_ORDER = "does not have a deterministic implementation"


def resolved(config: C, device: torch.device) -> C:
    """Return the configuration with the values that `auto` has on this device.

    Raises:
        ConfigError: an option that the device or the installation cannot do, with the reason.
    """
    is_gpu = device.type == "cuda"
    precision = config.precision
    if precision == "auto":
        precision = "bf16" if is_gpu and _has_bf16() else "fp32"

    deterministic = config.deterministic
    if deterministic is None:
        deterministic = not is_gpu

    found = dataclasses.replace(config, precision=precision, deterministic=deterministic)
    problems = list(_problems(found, is_gpu))
    if problems:
        raise ConfigError("; ".join(problems), problems)

    return found


def prepare_computation(config: ComputeConfig) -> None:
    """Set PyTorch's switches of this process as a resolved configuration says."""
    use_tf32(config.precision == "tf32")
    # With `warn_only`, the memory-efficient attention would keep to its faster backward pass, whose
    # sums have no order.
    torch.use_deterministic_algorithms(bool(config.deterministic))
    # It fills every new tensor with NaN first, to show reads of what was never written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    # Determinism of cuDNN's convolutions is part of the above; the search for the fastest is not.
    torch.backends.cudnn.benchmark = False


def shown_computation(config: ComputeConfig, device: torch.device) -> str:
    """Return how a rank computes, in one line."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    values = [f"{key}={str(value).lower()}" for key, value in config.computation().items()]
    return f"computing on {name}: {', '.join(values)}"


def refused_by_determinism(error: Exception) -> ConfigError | None:
    """Return what to say where an operation has no deterministic form; None for other errors."""
    if _NO_ORDER not in str(error):
        return None
    operation = str(error).split(_NO_ORDER, 1)[0].strip()
    return ConfigError(
        f"deterministic=true: {operation} has no deterministic form on this device; use"
        " deterministic=false"
    )


def _problems(config: ComputeConfig, is_gpu: bool) -> list[str]:
    problems = []
    if config.precision == "bf16" and is_gpu and not _has_bf16():
        problems.append("precision='bf16' is not supported by this GPU; use fp32")
    if config.precision == "tf32" and not (is_gpu and _capability() >= _AMPERE):
        problems.append(
            "precision='tf32' needs a GPU of compute capability 8.0 or more; use fp32 or auto"
        )
    return [*problems, *_flash_problems(config, is_gpu), *_compile_problems(config, is_gpu)]


def _flash_problems(config: ComputeConfig, is_gpu: bool) -> list[str]:
    if config.attention != "flash":
        return []
    if not is_gpu or config.precision != "bf16":
        return ["attention='flash' needs a GPU and precision=bf16; use sdpa"]
    # Without it, transformers would look for a kernel to download.
    if importlib.util.find_spec("flash_attn") is None:
        return ["attention='flash' needs the package flash-attn, which is not installed; use sdpa"]
    return []


def _compile_problems(config: ComputeConfig, is_gpu: bool) -> list[str]:
    if config.compile == "off":
        return []
    given = os.environ.get("CXX") or os.environ.get("CC")
    if not any(map(shutil.which, [given] if given else _COMPILERS)):
        return [f"compile={config.compile!r} needs a C compiler, which is not installed; use off"]
    if is_gpu and importlib.util.find_spec("triton") is None:
        return [f"compile={config.compile!r} needs triton, which is not installed; use off"]
    return []


def _has_bf16() -> bool:
    # PyTorch also says yes where it would emulate it, which is slower than fp32.
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _capability() -> tuple[int, int]:
    return torch.cuda.get_device_capability()

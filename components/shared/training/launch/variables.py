"""Environment variables of the ranks that CUDA and PyTorch read before any code of ours runs."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.shared.contracts.environment import Variable

__all__ = ["computation_variables"]

# Two buffers of fixed size for each stream, with which cuBLAS adds in one order
# (docs.nvidia.com/cuda/cublas, "Results reproducibility").
_FIXED_WORKSPACE = ":4096:8"
# Memory that was freed in pieces can serve a larger tensor: a micro-batch fits that did not.
_SEGMENTS = "expandable_segments:True"
_COMPILED = "compiled"


def computation_variables(job: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the variables that the options of a job need; one that is set already stays as it is.

    Args:
        job: What job.json holds: the phase's "config", and for a training its "checkpoints", beside
            whose directory compiled kernels are kept.
    """
    config, checkpoints = job.get("config", {}), job.get("checkpoints", {})
    wanted: dict[str, str] = {}
    if not any(os.environ.get(name) for name in (Variable.ALLOCATOR, Variable.CUDA_ALLOCATOR)):
        wanted[Variable.ALLOCATOR] = _SEGMENTS

    if config.get("deterministic"):
        wanted[Variable.CUBLAS_WORKSPACE] = _FIXED_WORKSPACE
        wanted[Variable.FLASH_DETERMINISTIC] = "1"
    if config.get("compile", "off") != "off" and checkpoints.get("directory"):
        wanted[Variable.COMPILED] = str(Path(checkpoints["directory"]).parent / _COMPILED)

    return {name: value for name, value in wanted.items() if not os.environ.get(name)}

"""Machine and versions that benchmarks are measured on."""

import importlib.metadata
import platform
from pathlib import Path

from components.shared.contracts.machine import n_usable_cores

_PACKAGES = ("numpy", "onnxruntime", "pillow", "scikit-learn", "torch", "transformers")


def described() -> str:
    """Return processor, cores and versions in one line."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    vnni = "with VNNI" if has_vnni() else "without VNNI"
    machine = f"{_cpu_field('model name')}, {vnni}, {n_usable_cores()} cores"
    return f"{machine}; Python {platform.python_version()}, {versions}"


def has_bf16_instructions() -> bool:
    """Return whether the processor multiplies bf16 in hardware (AVX-512 BF16 or AMX)."""
    flags = _cpu_field("flags").split()
    return "avx512_bf16" in flags or "amx_bf16" in flags


def has_vnni() -> bool:
    """Return whether the processor adds products of 8-bit integers in one instruction."""
    flags = _cpu_field("flags").split()
    return "avx512_vnni" in flags or "avx_vnni" in flags


def _cpu_field(name: str) -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "")

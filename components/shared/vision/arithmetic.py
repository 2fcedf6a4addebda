"""Arithmetic of fp32 products on GPUs: exact, or TensorFloat-32 with its 10-bit mantissa.

PyTorch's settings are of the process, so that a backward pass, which runs outside of any context,
follows them too. They have no effect on a CPU. PyTorch 2.9's newer names for them are not used:
its own compiler still reads the older ones, and the two do not mix.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["single_precision", "use_tf32"]


def use_tf32(allowed: bool) -> None:
    """Let matrix products and convolutions of fp32 tensors on a GPU use TensorFloat-32, or not.

    By PyTorch's default, convolutions do and matrix products do not.
    """
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


@contextmanager
def single_precision(device: torch.device) -> Iterator[None]:
    """Compute fp32 tensors in fp32 inside: without autocast, and without TensorFloat-32.

    TensorFloat-32 is a setting of the process: other threads must not compute meanwhile.
    """
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    use_tf32(False)
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before

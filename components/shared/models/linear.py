"""The linear layer of all heads, in exact fp32 whatever the precision of the backbone."""

import torch
from torch import nn

from components.shared.vision.arithmetic import single_precision

__all__ = ["HeadLinear"]


class HeadLinear(nn.Linear):
    """A linear map in fp32: in bfloat16 a logit of 10 would have steps of 0.06.

    Many images would then have equal scores, which neither rank nor calibrate. The cost is nothing
    beside the backbone's.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return (..., out) float32 from (..., in)."""
        with single_precision(input.device):
            return super().forward(input.to(self.weight.dtype))

"""Losses of a whole global batch, as sums over its samples with the exact gradient.

A threshold, a coverage or a nearest neighbour is a function of all outputs of a batch, while a
process has those of its own samples, and of one micro-batch at a time. Outputs of the whole batch
are computed without gradient first; the loss's derivatives by these outputs then tell each sample
what its own output is worth (Gao et al. 2021, arXiv 2101.06983, section 3.2). The weights do not
change in between, so that the sum over all parts has the gradient of the whole, for any number of
processes and any micro-batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch


@dataclass(frozen=True)
class BatchLoss:
    """A loss of B samples' outputs: its value, and its derivatives.

    Attributes:
        value: () the mean loss of the batch.
        gradient: (B, ...) derivatives of `value` by the outputs.
    """

    value: torch.Tensor
    gradient: torch.Tensor

    @classmethod
    def of(cls, outputs: torch.Tensor, loss: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        """Return the loss of the whole batch.

        Args:
            outputs: (B, ...) outputs of all samples, in the order of their batch slots.
            loss: Function of the outputs; a differentiable scalar.
        """
        leaf = outputs.detach().requires_grad_()
        with torch.enable_grad():
            value = loss(leaf)
            (gradient,) = torch.autograd.grad(value, leaf)
        return cls(value.detach(), gradient)

    def part(self, outputs: torch.Tensor, batch_slots: torch.Tensor) -> torch.Tensor:
        """Return the part of some samples; the parts of a batch sum to B times its mean loss.

        Args:
            outputs: (n, ...) outputs of these samples, with gradients.
            batch_slots: (n,) int64 their positions in the global batch.
        """
        gradient = self.gradient[batch_slots]
        # Zero, with the derivative of the outputs.
        change = (gradient * (outputs - outputs.detach())).sum()
        return len(outputs) * self.value + len(self.gradient) * change

"""PROFIT (arXiv 2412.01930): research option of a single paper, around any optimizer.

It fine-tunes a converged model without giving up what it has learned.
"""

from collections.abc import Sequence

import torch


class ReferenceStep:
    """PROFIT (arXiv 2412.01930, algorithm 1) with one reference step.

    From theta, a plain gradient step of a small rate on a batch of its own gives theta'; D =
    theta' - theta. The gradient g of the next batch is taken at theta'. Where <g, D> < 0, a step
    against g leads on along D, further from theta; the part along D is then removed: g - <g, D> /
    |D|^2 D. A step that leads back is left whole. The optimiser steps with the result from theta.

    The idea is that theta is a good place, as that of a converged backbone is. A fresh head has no
    such place: its parameters belong to neither theta nor D, and are trained as without PROFIT.
    Twice the computation, and one more copy of the parameters, which is held from the beginning, so
    that memory that suffices once suffices always.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter], rate: float) -> None:
        """`parameters`: those that start from a trained state; `rate` > 0: that of the step."""
        self._parameters, self._rate = parameters, rate
        self._start = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def take(self) -> None:
        """Go to theta' by the gradients in the parameters."""
        for start, parameter in zip(self._start, self._parameters, strict=True):
            start.copy_(parameter)
            if parameter.grad is not None:
                parameter.sub_(parameter.grad, alpha=self._rate)

    @torch.no_grad()
    def undo(self) -> None:
        """Remove from the gradients what would lead on along the displacement; restore theta."""
        moved = [
            parameter - start
            for start, parameter in zip(self._start, self._parameters, strict=True)
        ]
        pairs = [
            (p.grad, d) for p, d in zip(self._parameters, moved, strict=True) if p.grad is not None
        ]
        if pairs:
            # Summed in double precision: over millions of parameters the sign would drown in
            # rounding. On the device, which nothing waits for.
            along = torch.stack([torch.sum(g * d, dtype=torch.float64) for g, d in pairs]).sum()
            length = torch.stack([torch.sum(d * d, dtype=torch.float64) for d in moved]).sum()
            removed = torch.where(along < 0, along / length, 0.0)
            for grad, d in pairs:
                grad.sub_(d * removed.to(d.dtype))

        for start, parameter in zip(self._start, self._parameters, strict=True):
            parameter.copy_(start)

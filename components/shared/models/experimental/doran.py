"""DoRAN: DoRA with a learned offset in its denominator, as an extension of peft's DoRA layer.

DoRAN (arXiv 2510.04331, eq. 5): W' = m * (W0 + s B A) / (||W0 + s B A|| + tau) by rows, tau >= 0
learned, which stabilises rows of small norm. The paper's second part, auxiliary networks that
generate A and B, is left out: no ablation separates its gain, and it adds parameters. peft has DoRA
but not DoRAN.
"""

import torch
from peft import PeftModel
from peft.tuners.lora.dora import DoraLinearLayer
from torch import nn
from torch.nn import functional as F

_INITIAL_TAU = 0.1


class DoranLinearLayer(DoraLinearLayer):  # type: ignore[misc]
    """DoRA's magnitude layer with a scalar `tau` in its norm; initially the identity."""

    def __init__(self, dora: DoraLinearLayer, tau: float = _INITIAL_TAU) -> None:
        super().__init__(dora.fan_in_fan_out)
        self.tau = nn.Parameter(torch.tensor(tau))
        self.weight = nn.Parameter(dora.weight.detach() + tau)

    def get_weight_norm(
        self,
        weight: torch.Tensor,
        lora_weight: torch.Tensor,
        scaling: float,
        adapter_name: str | None = None,
    ) -> torch.Tensor:
        """Return the row norms (out,) plus tau.

        The norm is a constant for the gradient (DoRA, section 4.3), tau is not.
        """
        norm: torch.Tensor = super().get_weight_norm(
            weight, lora_weight, scaling, adapter_name=adapter_name
        )
        return norm.detach() + self.tau.clamp(min=0)

    def forward(
        self,
        x: torch.Tensor,
        *,
        lora_A: nn.Module,
        lora_B: nn.Module,
        scaling: float,
        base_layer: nn.Linear,
        base_result: torch.Tensor | None = None,
        adapter_name: str = "default",
    ) -> torch.Tensor:
        """Return the term that is added to the base layer's output.

        Overridden because peft's forward detaches the whole denominator, including tau.
        """
        lora_weight = self.get_lora_weight(lora_A=lora_A, lora_B=lora_B, adapter_name=adapter_name)
        norm = self.get_weight_norm(
            base_layer.weight, lora_weight.detach(), scaling, adapter_name=adapter_name
        )
        factor = (self.weight / norm).view(1, -1)

        if base_result is None:
            without_bias = F.linear(x, base_layer.weight)
        else:
            without_bias = base_result if base_layer.bias is None else base_result - base_layer.bias

        added: torch.Tensor = (factor - 1) * without_bias + factor * lora_B(lora_A(x)) * scaling

        return added


def with_doran(model: PeftModel) -> PeftModel:
    """Replace every DoRA layer of the model by a DoRAN layer, in place; return the model."""
    for module in model.modules():
        layers = getattr(module, "lora_magnitude_vector", {})
        for name in list(layers):
            layers[name] = DoranLinearLayer(layers[name])
    return model

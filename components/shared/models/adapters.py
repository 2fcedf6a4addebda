"""How is a backbone made trainable: not at all, by low-rank adapters, or in full?"""

from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from components.shared.errors import PermanentError

MODES = ("frozen", "lora", "full")
# Largest difference of merged and unmerged features that fp32 rounding explains, with a margin of 100.
_MERGE_TOLERANCE = 1e-4


def prepare(backbone: PreTrainedModel, mode: str, *, rank: int, alpha: float) -> PreTrainedModel:
    """The backbone with exactly the parameters of `mode` trainable.

    LoRA (Hu et al., arXiv 2106.09685) on the attention's query and value projections; scaling is alpha / rank.
    """
    if mode == "full":
        return backbone
    for parameter in backbone.parameters():
        parameter.requires_grad_(False)
    if mode == "frozen":
        return backbone
    names = {name.rsplit(".", 1)[-1] for name, module in backbone.named_modules() if isinstance(module, nn.Linear)}
    targets = [name for name in ("q_proj", "v_proj", "query", "value") if name in names]
    return get_peft_model(backbone, LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets))


def merge(backbone: PreTrainedModel, probe: torch.Tensor) -> PreTrainedModel:
    """Fold the adapters into the weights (fp32) and check the features of `probe` (B, 3, S, S) before and after.

    Raises PermanentError where they differ by more than 1e-4 or are not finite.
    """
    if not isinstance(backbone, PeftModel):
        return backbone
    with torch.no_grad():
        before = backbone(pixel_values=probe).last_hidden_state
        merged = backbone.merge_and_unload(safe_merge=True)
        after = merged(pixel_values=probe).last_hidden_state
    difference = float((before - after).abs().max())
    if not difference <= _MERGE_TOLERANCE:
        raise PermanentError(f"merged backbone differs from the adapted one by {difference:.3g} (> {_MERGE_TOLERANCE})")
    return merged


def save_adapter(backbone: PreTrainedModel, directory: Path) -> None:
    """Write the adapter weights alone (safetensors), where there are any."""
    if isinstance(backbone, PeftModel):
        # A set by default, written in an order that differs from process to process.
        for config in backbone.peft_config.values():
            config.target_modules = sorted(config.target_modules)
        backbone.save_pretrained(directory)


def trainable_share(module: nn.Module) -> tuple[int, int]:
    """(trainable, all) parameter counts."""
    parameters = list(module.parameters())
    return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)

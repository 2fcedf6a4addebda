"""Which parameters does extended pre-training change? ExPLoRA on any backbone that the project
supports.

ExPLoRA (Khanna et al. 2025, arXiv 2406.10973, algorithm 1): the last blocks unfrozen, LoRA on the
query and value projections of all others, all norms unfrozen, the rest as it was. One adapter of
peft holds all of it, so that it is stored, loaded and merged as any other.
"""

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from components.shared.contracts.errors import ConfigError

_TARGETS = ("attention.q_proj", "attention.v_proj")


def prepare_explora(
    backbone: PreTrainedModel, *, rank: int, alpha: float, unfrozen_blocks: int
) -> PeftModel:
    """The backbone with exactly ExPLoRA's parameters trainable; it computes what it did before.

    LoRA is scaled by alpha / rank. Raises ConfigError where `unfrozen_blocks` leaves no block to
    adapt.
    """
    prefix, blocks = _blocks(backbone)
    n_adapted = len(blocks) - unfrozen_blocks
    if not 0 < n_adapted < len(blocks):
        raise ConfigError(
            f"explora_unfrozen_blocks={unfrozen_blocks} of a backbone with {len(blocks)} blocks; "
            f"give 1 to {len(blocks) - 1}"
        )
    unfrozen = [f"{prefix}.{index}" for index in range(n_adapted, len(blocks))]
    # Norms inside an unfrozen block are part of it.
    norms = [
        name
        for name, module in backbone.named_modules()
        if isinstance(module, nn.LayerNorm)
        and not name.startswith(tuple(f"{block}." for block in unfrozen))
    ]
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=[
            f"{prefix}.{index}.{target}" for index in range(n_adapted) for target in _TARGETS
        ],
        modules_to_save=[*unfrozen, *norms],
    )
    for parameter in backbone.parameters():
        parameter.requires_grad_(False)
    return get_peft_model(backbone, config)


def _blocks(backbone: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """Name and content of the list of transformer blocks, in order."""
    return next(
        (name, module)
        for name, module in backbone.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == backbone.config.num_hidden_layers
    )

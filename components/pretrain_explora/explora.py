"""ExPLoRA: the parameters that extended pre-training changes, on any supported backbone.

ExPLoRA (Khanna et al. 2025, arXiv 2406.10973, algorithm 1): the last blocks are unfrozen, the
others have LoRA on their query and value projections, all norms are unfrozen, the rest is frozen.
One adapter of peft holds all of it, so that it is stored, loaded and merged as any other; peft has
no ready-made configuration of this choice.
"""

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from components.shared.contracts.errors import ConfigError

_TARGETS = ("attention.q_proj", "attention.v_proj")


def prepare_explora(
    backbone: PreTrainedModel, *, rank: int, alpha: float, unfrozen_blocks: int
) -> PeftModel:
    """Return the backbone with exactly ExPLoRA's parameters trainable; outputs do not change.

    Args:
        backbone: The pretrained backbone; changed in place.
        rank: Rank of LoRA.
        alpha: LoRA is scaled by alpha / rank.
        unfrozen_blocks: Number of last blocks that are trained in full.

    Raises:
        ConfigError: `unfrozen_blocks` leaves no block to adapt.
    """
    prefix, blocks = _blocks(backbone)
    n_adapted = len(blocks) - unfrozen_blocks
    if not 0 < n_adapted < len(blocks):
        raise ConfigError(
            f"explora_unfrozen_blocks={unfrozen_blocks} of a backbone with {len(blocks)} blocks; "
            f"give 1 to {len(blocks) - 1}"
        )

    unfrozen = [f"{prefix}.{index}" for index in range(n_adapted, len(blocks))]
    # Norms inside an unfrozen block are part of that block.
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
    """Return name and content of the list of transformer blocks, in order."""
    return next(
        (name, module)
        for name, module in backbone.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == backbone.config.num_hidden_layers
    )

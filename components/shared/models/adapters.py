"""How is a backbone made trainable: not at all, by adapters of peft, or in full?"""

from pathlib import Path
from typing import Any

import torch
from peft import PEFT_TYPE_TO_CONFIG_MAPPING, LoraConfig, PeftConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from components.shared.contracts.errors import ConfigError, PermanentError, one_line
from components.shared.models.backbone import exact_tokens
from components.shared.models.experimental.doran import with_doran

# What peft's LoRA is called with particular options: Hu et al. 2021, Liu et al. 2024 (DoRA),
# Kalajdzievski 2023 (rsLoRA), Meng et al. 2024 (PiSSA), Büyükakyüz 2024 (OLoRA), and DoRAN on top
# of DoRA.
LORA_VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {},
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True},
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"},
    "doran": {"use_dora": True},
}
_TARGETS = ("q_proj", "v_proj", "query", "value")
# Largest difference of merged and unmerged tokens that storing fp32 weights explains, with a margin
# of 100.
_MERGE_TOLERANCE = 1e-4


def prepare(
    backbone: PreTrainedModel,
    mode: str,
    *,
    rank: int,
    alpha: float,
    options: dict[str, Any] | None = None,
) -> PreTrainedModel:
    """The backbone with exactly the parameters of `mode` trainable: frozen, full, or an adapter's
    name.

    Adapters sit on the attention's query and value projections. `options` are further fields of
    peft's configuration. Raises ConfigError where peft refuses them.
    """
    if mode == "full":
        return backbone
    for parameter in backbone.parameters():
        parameter.requires_grad_(False)
    if mode == "frozen":
        return backbone
    names = {
        name.rsplit(".", 1)[-1]
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Linear)
    }
    targets = [name for name in _TARGETS if name in names]
    try:
        adapted = get_peft_model(
            backbone, _config(mode, rank, alpha, {"target_modules": targets} | (options or {}))
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"mode={mode!r} with adapter_options={options}: {one_line(error)[:200]}"
        ) from error
    return with_doran(adapted) if mode == "doran" else adapted


def _config(mode: str, rank: int, alpha: float, options: dict[str, Any]) -> PeftConfig:
    if mode in LORA_VARIANTS:
        return LoraConfig(**({"r": rank, "lora_alpha": alpha} | LORA_VARIANTS[mode] | options))
    kind = PEFT_TYPE_TO_CONFIG_MAPPING[mode.upper()]
    fields = {"r": rank, "rank": rank, "alpha": alpha}
    return kind(
        **(
            {name: value for name, value in fields.items() if name in kind.__dataclass_fields__}
            | options
        )
    )


def merge(backbone: PreTrainedModel, probe: torch.Tensor) -> PreTrainedModel:
    """Fold the adapters into the weights (fp32) and check the tokens of `probe` (B, 3, S, S) before
    and after.

    Raises PermanentError where they differ by more than 1e-4 or are not finite.
    """
    if not isinstance(backbone, PeftModel):
        return backbone
    before = exact_tokens(backbone, probe)
    with torch.no_grad():
        merged = backbone.merge_and_unload(safe_merge=True)
    difference = float((before - exact_tokens(merged, probe)).abs().max())
    if not difference <= _MERGE_TOLERANCE:
        raise PermanentError(
            f"merged backbone differs from the adapted one by {difference:.3g} (>"
            f" {_MERGE_TOLERANCE})"
        )
    return merged


def save_adapter(backbone: PreTrainedModel, directory: Path) -> None:
    """Write the adapter weights alone (safetensors), where there are any."""
    if isinstance(backbone, PeftModel):
        # A set by default, written in an order that differs from process to process.
        for config in backbone.peft_config.values():
            config.target_modules = sorted(config.target_modules)
            # Where the backbone was read from is no property of the adapter.
            config.base_model_name_or_path = ""
        backbone.save_pretrained(directory)


def trainable_share(module: nn.Module) -> tuple[int, int]:
    """(trainable, all) parameter counts."""
    parameters = list(module.parameters())
    return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)

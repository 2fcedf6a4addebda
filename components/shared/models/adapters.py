"""Adaptations of a backbone: frozen, trained in full, or by peft's adapters, and their merging.

Own code around peft: the choice of target modules that fits all supported backbones, a merge that
is verified in float64, and adapter files with equal bytes for equal weights.
"""

from pathlib import Path
from typing import Any

import torch
from peft import PEFT_TYPE_TO_CONFIG_MAPPING, LoraConfig, PeftConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from components.shared.contracts.errors import ConfigError, PermanentError, one_line
from components.shared.models.backbone import exact_tokens
from components.shared.models.experimental.doran import with_doran
from components.shared.vision.arithmetic import single_precision

# Names of peft's LoRA with particular options: Hu et al. 2021, Liu et al. 2024 (DoRA),
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
# Query and value projections, by the names that the supported architectures give them.
_TARGETS = ("q_proj", "v_proj", "query", "value")
# Storing fp32 weights explains differences of 1e-6 between merged and unmerged tokens.
_MERGE_TOLERANCE = 1e-4


def prepare(
    backbone: PreTrainedModel,
    mode: str,
    *,
    rank: int,
    alpha: float,
    options: dict[str, Any] | None = None,
) -> PreTrainedModel:
    """Return the backbone with exactly the parameters of `mode` trainable.

    Args:
        backbone: The pretrained backbone; changed in place.
        mode: "frozen", "full", or an adapter's name. Adapters are attached to the attention's
            query and value projections.
        rank: Rank of the adapters.
        alpha: Adapters are scaled by alpha / rank.
        options: Further fields of peft's configuration of the adapter.

    Raises:
        ConfigError: peft refuses the options.
    """
    if mode == "full":
        return backbone

    for parameter in backbone.parameters():
        parameter.requires_grad_(False)
    if mode == "frozen":
        return backbone

    linear_names = {
        name.rsplit(".", 1)[-1]
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Linear)
    }

    targets = [name for name in _TARGETS if name in linear_names]
    try:
        config = _config(mode, rank, alpha, {"target_modules": targets} | (options or {}))
        adapted = get_peft_model(backbone, config)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"mode={mode!r} with adapter_options={options}: {one_line(error)[:200]}"
        ) from error

    return with_doran(adapted) if mode == "doran" else adapted


def _config(mode: str, rank: int, alpha: float, options: dict[str, Any]) -> PeftConfig:
    if mode in LORA_VARIANTS:
        return LoraConfig(**({"r": rank, "lora_alpha": alpha} | LORA_VARIANTS[mode] | options))

    # Adapters other than LoRA call the same quantities by different names.
    kind = PEFT_TYPE_TO_CONFIG_MAPPING[mode.upper()]
    candidates = {"r": rank, "rank": rank, "alpha": alpha}
    fields = {
        name: value for name, value in candidates.items() if name in kind.__dataclass_fields__
    }

    return kind(**(fields | options))


def merge(backbone: PreTrainedModel, probe: torch.Tensor) -> PreTrainedModel:
    """Merge the adapters into the weights (fp32) and verify the result on `probe`.

    Args:
        backbone: A backbone from `prepare`; returned unchanged if it has no adapters.
        probe: (B, 3, S, S) normalised images whose tokens are compared before and after.

    Raises:
        PermanentError: The tokens differ by more than 1e-4 or are not finite.
    """
    if not isinstance(backbone, PeftModel):
        return backbone

    before = exact_tokens(backbone, probe)
    # TensorFloat-32 has 10 bits: the products of the adapter's factors would fail the check below.
    with torch.no_grad(), single_precision(probe.device):
        merged = backbone.merge_and_unload(safe_merge=True)
    difference = float((before - exact_tokens(merged, probe)).abs().max())
    # Negated, so that a NaN is refused too.
    if not difference <= _MERGE_TOLERANCE:
        raise PermanentError(
            f"merged backbone differs from the adapted one by {difference:.3g} (>"
            f" {_MERGE_TOLERANCE})"
        )

    return merged


def save_adapter(backbone: PreTrainedModel, directory: Path) -> None:
    """Write the adapter's weights (safetensors) and configuration, if the backbone has one."""
    if not isinstance(backbone, PeftModel):
        return
    for config in backbone.peft_config.values():
        # peft holds a set, and would write it in an order that differs from process to process.
        config.target_modules = sorted(config.target_modules)
        # The path that the backbone was read from is no property of the adapter.
        config.base_model_name_or_path = ""
    backbone.save_pretrained(directory)


def trainable_counts(module: nn.Module) -> tuple[int, int]:
    """Return the numbers of trainable and of all parameters."""
    parameters = list(module.parameters())
    n_trainable = sum(p.numel() for p in parameters if p.requires_grad)
    return n_trainable, sum(p.numel() for p in parameters)

"""A small random backbone of every supported family."""

import torch
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    PreTrainedModel,
    ViTConfig,
    ViTModel,
)

_SHAPE = {"hidden_size": 32, "num_attention_heads": 2, "patch_size": 14, "image_size": 56}
_MLP, _REGISTERS = {"intermediate_size": 64}, {"num_register_tokens": 4}
_FAMILIES = {
    "dinov2": (Dinov2Model, Dinov2Config, {"mlp_ratio": 2}),
    "dinov2_with_registers": (
        Dinov2WithRegistersModel,
        Dinov2WithRegistersConfig,
        {"mlp_ratio": 2} | _REGISTERS,
    ),
    "dinov3_vit": (DINOv3ViTModel, DINOv3ViTConfig, _MLP | _REGISTERS),
    "vit": (ViTModel, ViTConfig, _MLP),
}
FAMILIES = list(_FAMILIES)


def small(family: str, blocks: int = 2) -> PreTrainedModel:
    """Width 32, images of 56 pixels in patches of 14, in evaluation mode."""
    torch.manual_seed(0)
    model, config, more = _FAMILIES[family]
    return model(config(**_SHAPE, num_hidden_layers=blocks, **more)).eval()

"""Pretrained vision backbones: loading, and their tokens as features.

Backbones are loaded through transformers' Auto classes: DINOv2 (with or without registers), DINOv3
and ViT.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from components.shared.contracts.errors import DataError
from components.shared.model_files import image_statistics as statistics
from components.shared.models.blocks import as_written
from components.shared.models.loading import load_pretrained

# What training and pre-training write beside the model's files.
_ARTIFACT = ("manifest.json", "training.json", "metrics.csv", "tensorboard", "adapter")
# Only masked pre-training needs the mask token.
_MASK_TOKEN = "mask_token"  # noqa: S105 - a weight
# What checkpoints of whole classifiers have on top of the backbone.
_HEADS = ("classifier.", "pooler.")


def load_backbone(folder: str | Path, *, where: str = "") -> PreTrainedModel:
    """Return the pretrained backbone of a Hugging Face folder with safetensors, in fp32.

    `mask_token` is frozen: only masked pre-training uses it, and an unused trainable parameter
    would stop DDP (the alternative, `find_unused_parameters`, costs a graph traversal per step).

    Args:
        folder: The folder, or a Backbone artifact.
        where: Name of the folder in messages; empty: its path.

    Raises:
        DataError: The folder cannot be loaded, its architecture is not supported, a key of its
            config.json is refused, or its weights are incomplete, damaged or of another model.
    """
    model = load_pretrained(
        Path(folder),
        where or f"backbone={str(folder)!r}",
        others=_ARTIFACT,
        optional=[_MASK_TOKEN],
        ignored=[*_HEADS, f"embeddings.{_MASK_TOKEN}"],
        error=DataError,
    )

    for name, parameter in model.named_parameters():
        if name.endswith(_MASK_TOKEN):
            parameter.requires_grad_(False)

    return model


def image_statistics(folder: str | Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel of the backbone's pre-training data.

    Those of ImageNet where the folder records none. Raises DataError for recorded values that are
    not three numbers per statistic, or a standard deviation of zero.
    """
    return statistics.image_statistics(Path(folder), f"backbone={str(folder)!r}", error=DataError)


def n_prefix_tokens(backbone: PreTrainedModel) -> int:
    """Return the number of tokens before the patches in `last_hidden_state`: CLS and registers."""
    return 1 + int(getattr(backbone.config, "num_register_tokens", 0) or 0)


def tokens_of(backbone: PreTrainedModel, pixel_values: torch.Tensor, **extra: Any) -> torch.Tensor:
    """Return the tokens (B, T, h) after the last layer's norm.

    Args:
        backbone: A backbone of SUPPORTED_TYPES.
        pixel_values: (B, 3, S, S) float32 normalised images.
        extra: Further arguments of the backbone's forward pass.
    """
    # ViT refuses any image size but that of its pre-training, unless told to interpolate.
    if backbone.config.model_type == "vit":
        extra["interpolate_pos_encoding"] = True
    return torch.Tensor(backbone(pixel_values=pixel_values, **extra).last_hidden_state)


def exact_tokens(backbone: PreTrainedModel, pixel_values: torch.Tensor) -> torch.Tensor:
    """Return `tokens_of` in float64, for comparing weights.

    In fp32, two orders of the same sums differ by up to 1e-4. The weights are fp32 before and
    after; the conversion is exact.
    """
    try:
        with torch.no_grad(), as_written(backbone):
            return tokens_of(backbone.double(), pixel_values.double())
    finally:
        backbone.float()


def patch_and_cls(backbone: PreTrainedModel, pixel_values: torch.Tensor) -> torch.Tensor:
    """Return features (B, 2h): CLS token and mean patch token after the last layer's norm.

    These are the features that transformers' `Dinov2ForImageClassification` feeds to its head.
    They are float32 under autocast too, averaged in float32. `pixel_values` are (B, 3, S, S)
    float32 normalised images.
    """
    return pool_tokens(backbone, tokens_of(backbone, pixel_values).float())


def pool_tokens(backbone: PreTrainedModel, tokens: torch.Tensor) -> torch.Tensor:
    """Return features (..., 2h) of tokens (..., T, h): CLS token and mean patch token."""
    cls, patches = split_tokens(backbone, tokens)
    return torch.cat([cls, patches.mean(dim=-2)], dim=-1)


def split_tokens(
    backbone: PreTrainedModel, tokens: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return CLS (..., h) and the P patches (..., P, h) of tokens (..., T, h), row by row."""
    return tokens[..., 0, :], tokens[..., n_prefix_tokens(backbone) :, :]

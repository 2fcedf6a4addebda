"""Pretrained vision backbones: loading, and their tokens as features.

Backbones are loaded through transformers' Auto classes: DINOv2 (with or without registers), DINOv3
and ViT.
"""

from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.image_processing_base import ImageProcessingMixin

from components.shared.contracts.errors import DataError, one_line

SUPPORTED_TYPES = ("dinov2", "dinov2_with_registers", "dinov3_vit", "vit")
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load_backbone(folder: str) -> PreTrainedModel:
    """Return the pretrained backbone of a Hugging Face folder with safetensors, in fp32.

    `mask_token` is frozen: only masked pre-training uses it, and an unused trainable parameter
    would stop DDP (the alternative, `find_unused_parameters`, costs a graph traversal per step).

    Raises:
        DataError: The folder cannot be loaded, lacks weights, or its architecture is not supported.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        if config.model_type not in SUPPORTED_TYPES:
            raise DataError(
                f"backbone={folder!r} is a {config.model_type!r}, supported:"
                f" {', '.join(SUPPORTED_TYPES)}"
            )

        extra: dict[str, Any] = {"add_pooling_layer": False} if config.model_type == "vit" else {}
        model, report = AutoModel.from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **extra,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise DataError(
            f"backbone={folder!r} cannot be loaded: {one_line(error)[:300]}; give a Hugging Face"
            " folder"
        ) from error

    # transformers would initialise missing weights at random, with a warning. Only masked
    # pre-training needs the mask token.
    missing = sorted(name for name in report["missing_keys"] if not name.endswith("mask_token"))
    if missing:
        raise DataError(f"backbone={folder!r} lacks {len(missing)} weight(s), first {missing[0]!r}")

    for name, parameter in model.named_parameters():
        if name.endswith("mask_token"):
            parameter.requires_grad_(False)

    return model


def image_statistics(folder: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel of the backbone's pre-training data.

    Those of ImageNet where the folder records none.
    """
    try:
        recorded, _ = ImageProcessingMixin.get_image_processor_dict(folder)
    except OSError:
        recorded = {}
    mean, std = recorded.get("image_mean", _IMAGENET_MEAN), recorded.get("image_std", _IMAGENET_STD)
    return tuple(mean), tuple(std)


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
        with torch.no_grad():
            return tokens_of(backbone.double(), pixel_values.double())
    finally:
        backbone.float()


def patch_and_cls(backbone: PreTrainedModel, pixel_values: torch.Tensor) -> torch.Tensor:
    """Return features (B, 2h): CLS token and mean patch token after the last layer's norm.

    These are the features that transformers' `Dinov2ForImageClassification` feeds to its head.
    `pixel_values` are (B, 3, S, S) float32 normalised images.
    """
    tokens = tokens_of(backbone, pixel_values)
    return torch.cat([tokens[:, 0], tokens[:, n_prefix_tokens(backbone) :].mean(dim=1)], dim=1)

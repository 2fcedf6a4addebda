"""How is a vision backbone loaded, and which of its output tokens are patches?

Backbones come through transformers' Auto classes: DINOv2 (with or without registers), DINOv3 and
ViT.
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
    """The pretrained backbone of a Hugging Face folder with safetensors, in fp32.

    `mask_token` is frozen: it takes part in masked pre-training only, and an unused trainable
    parameter would stop DDP (the alternative, `find_unused_parameters`, costs a graph traversal
    every step). Raises DataError where the folder cannot be loaded, lacks weights, or its
    architecture is not supported.
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
    # transformers would draw them at random, with a warning. Masked pre-training alone needs the
    # mask token.
    missing = sorted(name for name in report["missing_keys"] if not name.endswith("mask_token"))
    if missing:
        raise DataError(f"backbone={folder!r} lacks {len(missing)} weight(s), first {missing[0]!r}")
    for name, parameter in model.named_parameters():
        if name.endswith("mask_token"):
            parameter.requires_grad_(False)
    return model


def image_statistics(folder: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel the backbone was pretrained with; ImageNet's where
    none is recorded.
    """
    try:
        recorded, _ = ImageProcessingMixin.get_image_processor_dict(folder)
    except OSError:
        recorded = {}
    mean, std = recorded.get("image_mean", _IMAGENET_MEAN), recorded.get("image_std", _IMAGENET_STD)
    return tuple(mean), tuple(std)


def n_prefix_tokens(backbone: PreTrainedModel) -> int:
    """Tokens before the patches in `last_hidden_state`: CLS and the registers."""
    return 1 + int(getattr(backbone.config, "num_register_tokens", 0) or 0)


def tokens_of(backbone: PreTrainedModel, pixel_values: torch.Tensor, **extra: Any) -> torch.Tensor:
    """(B, 3, S, S) float32 normalised -> (B, T, h) tokens of the last, normed layer; `extra` goes
    to the backbone.
    """
    if (
        backbone.config.model_type == "vit"
    ):  # it refuses any size but its own unless told to interpolate
        extra["interpolate_pos_encoding"] = True
    return torch.Tensor(backbone(pixel_values=pixel_values, **extra).last_hidden_state)


def exact_tokens(backbone: PreTrainedModel, pixel_values: torch.Tensor) -> torch.Tensor:
    """`tokens_of` in float64, for comparing weights: in fp32 two orders of the same sums differ by
    up to 1e-4.

    The weights are fp32 before and after, and lose nothing on the way.
    """
    try:
        with torch.no_grad():
            return tokens_of(backbone.double(), pixel_values.double())
    finally:
        backbone.float()


def patch_and_cls(backbone: PreTrainedModel, pixel_values: torch.Tensor) -> torch.Tensor:
    """(B, 3, S, S) float32 normalised -> (B, 2h) float: CLS token and mean patch token of the last,
    normed layer.

    The same features as transformers' `Dinov2ForImageClassification` feeds to its head.
    """
    tokens = tokens_of(backbone, pixel_values)
    return torch.cat([tokens[:, 0], tokens[:, n_prefix_tokens(backbone) :].mean(dim=1)], dim=1)

"""Positions of a backbone's patches, computed once for each size of image.

DINOv2 and ViT interpolate their position embeddings to the size of the image, and DINOv3 computes
its rotations, in every forward pass: kernels for a result that does not change. On GPUs, the
backward pass of the interpolation adds up in any order, so that equal trainings differ.
"""

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from components.shared.vision.arithmetic import single_precision

__all__ = ["bake_positions", "cache_positions"]

_RESULTS = "_positions_by_size"


class _Results(dict[tuple[Any, ...], tuple[int, Any]]):
    """By size: the version of the source, and what was computed from it."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Results":
        # The versions of a copied tensor are counted from the beginning.
        return _Results()


def cache_positions(model: nn.Module) -> None:
    """Let a model, changed in place, compute the positions of each size of image once.

    The numbers, the weights and the configuration stay what they are. Positions that are trained
    are computed in every pass with gradients, and anew after every change.
    """
    module: Any
    for module in model.modules():
        if hasattr(module, "interpolate_pos_encoding"):
            # Bound methods and not closures, so that a copy of the model has its own.
            module.interpolate_pos_encoding = MethodType(_position_embeddings, module)
        elif hasattr(module, "inv_freq"):
            module.forward = MethodType(_rotations, module)


def bake_positions(backbone: PreTrainedModel, image_size: int) -> None:
    """Replace position embeddings, in place, by those that images of this size have.

    Outputs for such images stay the same, and no pass interpolates any more: the embeddings can be
    trained. The configuration's `image_size` says for what size they are, so that a stored model
    loads as any other. Rotary embeddings have no weights, and stay.
    """
    for module in backbone.modules():
        if not hasattr(module, "interpolate_pos_encoding"):
            continue

        patches: Any = module.patch_embeddings
        n_patches = (image_size // backbone.config.patch_size) ** 2
        width = backbone.config.hidden_size
        with torch.no_grad():
            positions = type(module).interpolate_pos_encoding(
                module, torch.empty(1, n_patches + 1, width), image_size, image_size
            )

        trained = module.position_embeddings.requires_grad
        module.position_embeddings = nn.Parameter(positions.clone(), requires_grad=trained)
        patches.image_size, patches.num_patches = (image_size, image_size), n_patches
        if hasattr(module, "image_size"):  # of ViT
            module.image_size = patches.image_size
        backbone.config.image_size = image_size


def _position_embeddings(
    module: Any, embeddings: torch.Tensor, height: int, width: int
) -> torch.Tensor:
    """Return `interpolate_pos_encoding` of the module's class: (1, T, h)."""
    compute, weight = type(module).interpolate_pos_encoding, module.position_embeddings
    if weight.requires_grad and torch.is_grad_enabled():
        return torch.Tensor(compute(module, embeddings, height, width))
    key = (height, width, weight.dtype, weight.device)
    return torch.Tensor(
        _once(module, key, weight, lambda: compute(module, embeddings, height, width))
    )


def _rotations(module: Any, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `forward` of the module's class: cosines and sines (N, head width)."""
    compute, frequencies = type(module).forward, module.inv_freq
    if module.training:  # then they are random
        return compute(module, pixel_values)  # type: ignore[no-any-return]
    key = (*pixel_values.shape[-2:], pixel_values.dtype, frequencies.dtype, pixel_values.device)
    cosines, sines = _once(module, key, frequencies, lambda: compute(module, pixel_values))
    return cosines, sines


def _once(
    module: nn.Module, key: tuple[Any, ...], source: torch.Tensor, compute: Callable[[], Any]
) -> Any:
    """Return the stored result for `key`, computed anew where `source` was changed since."""
    results = module.__dict__.setdefault(_RESULTS, _Results())
    version, result = results.get(key, (None, None))
    if version != source._version:
        # Not a tensor of inference mode, which no later training could use.
        with torch.inference_mode(False), torch.no_grad(), single_precision(source.device):
            result = compute()
        results[key] = (source._version, result)
    return result

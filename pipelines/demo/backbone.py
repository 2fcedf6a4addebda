"""Which small backbone is trained in the demo, and how is it initialised to learn within a
minute?
"""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.demo.folder import publish

IMAGE_SIZE = 224
PATCH = 16
HIDDEN = 64
# The usual 0.02 is meant for widths near 1000; about 1 / sqrt(HIDDEN) lets a narrow network learn
# from the first epoch.
_WEIGHT_STD = 0.1
# Patch embeddings of standardised pixels get about unit size, positions a third of that.
_PATCH_GAIN = 0.25
_POSITION_GAIN = 0.3


def write_demo_backbone(folder: Path, *, seed: int = 0) -> None:
    """Write a DINOv2-architecture backbone (0.13 M parameters) with its preprocessing in Hugging
    Face layout.

    Nothing is pretrained: weights are random, except that the patch projection starts as cosine
    patterns and the positions as sine and cosine waves, which spares the training several epochs of
    finding out colours and places. Patches of 16 pixels, since at 28 the objects are lost; few
    heads and a narrow MLP, for they cost the most time. Byte-identical for equal seeds; nothing to
    do where the folder is complete.
    """
    publish(folder, {"seed": seed}, lambda directory: _write(directory, seed))


def _write(directory: Path, seed: int) -> None:
    import torch
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=2,
        mlp_ratio=2,
        patch_size=PATCH,
        image_size=IMAGE_SIZE,
        initializer_range=_WEIGHT_STD,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Dinov2Model(config)
    embeddings = model.embeddings
    with torch.no_grad():
        embeddings.patch_embeddings.projection.weight.copy_(
            torch.from_numpy(_PATCH_GAIN * cosine_patterns())
        )
        embeddings.position_embeddings[0, 1:].copy_(
            torch.from_numpy(_POSITION_GAIN * sincos_position_embedding())
        )
    model.save_pretrained(directory)
    _write_preprocessing(directory)


def cosine_patterns() -> NDArray[np.float32]:
    """The HIDDEN smoothest DCT-II patterns of three opponent colours, unit norm: (HIDDEN, 3, PATCH,
    PATCH).
    """
    k, n = np.arange(PATCH)[:, None], np.arange(PATCH)[None, :]
    waves = np.cos(math.pi * k * (n + 0.5) / PATCH) * np.where(
        k == 0, math.sqrt(1 / PATCH), math.sqrt(2 / PATCH)
    )
    colours = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
    order = sorted(
        ((i, j) for i in range(PATCH) for j in range(PATCH)), key=lambda pair: (sum(pair), pair)
    )
    patterns = [
        np.multiply.outer(colour, np.outer(waves[i], waves[j]))
        for i, j in order
        for colour in colours
    ]
    return np.stack(patterns[:HIDDEN]).astype(np.float32)


def sincos_position_embedding() -> NDArray[np.float32]:
    """Sine and cosine of row and column at HIDDEN / 4 frequencies: (number of patches, HIDDEN)."""
    side, n = IMAGE_SIZE // PATCH, HIDDEN // 4
    phase = np.arange(side)[:, None] / 100.0 ** (np.arange(n) / n)
    wave = np.concatenate([np.sin(phase), np.cos(phase)], axis=1)
    rows, columns = np.divmod(np.arange(side * side), side)
    return np.concatenate([wave[rows], wave[columns]], axis=1).astype(np.float32)


def _write_preprocessing(directory: Path) -> None:
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    processor = BitImageProcessorPil(
        do_center_crop=False,
        size=size,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    processor.save_pretrained(directory)

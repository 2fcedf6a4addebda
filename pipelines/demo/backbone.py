"""The small backbone of the demo, initialised so that it learns within a minute."""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.demo.folder import publish

IMAGE_SIZE = 224
PATCH = 16
HIDDEN = 64
# The usual 0.02 is meant for widths near 1000; with about 1 / sqrt(HIDDEN), a narrow network learns
# from the first epoch.
_WEIGHT_STD = 0.1
# Patch embeddings of standardised pixels have about unit size, position embeddings a third of that.
_PATCH_GAIN = 0.25
_POSITION_GAIN = 0.3


def write_demo_backbone(folder: Path, *, seed: int = 0) -> None:
    """Write a backbone of DINOv2's architecture (0.13 M parameters) as a Hugging Face folder.

    Nothing is pretrained: weights are random, except that the patch projection starts as cosine
    patterns and the position embeddings as sine and cosine waves, which saves several epochs of
    learning colours and locations. Patches have 16 pixels: with 28, the objects are lost. Few heads
    and a narrow MLP, which cost the most time. Equal seeds give equal bytes; a complete folder is
    not written again.
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
    """Return the HIDDEN smoothest DCT-II patterns of three opponent colours, with unit norm.

    Returns:
        (HIDDEN, 3, PATCH, PATCH) float32.
    """
    k, n = np.arange(PATCH)[:, None], np.arange(PATCH)[None, :]
    waves = np.cos(math.pi * k * (n + 0.5) / PATCH) * np.where(
        k == 0, math.sqrt(1 / PATCH), math.sqrt(2 / PATCH)
    )

    # Grey, red against blue, green against both.
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
    """Return sine and cosine of row and column at HIDDEN / 4 frequencies, (N, HIDDEN) float32."""
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

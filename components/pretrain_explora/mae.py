"""The lighter objective: the backbone sees a quarter of the patches, a small decoder paints the
others.

Masked autoencoder (He et al. 2022): hidden patches are left out of the backbone, so that it
computes only what it sees; targets are pixels, normalised per patch.
"""

import math

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from components.pretrain_explora import masks
from components.pretrain_explora.collapse_monitor import CollapseMonitor
from components.pretrain_explora.config import PretrainExploraConfig
from components.pretrain_explora.train_crops import Pixels, Positions
from components.shared.models.backbone import n_prefix_tokens, tokens_of
from components.shared.training.loop.distributed import World

_DEPTH, _HEAD_WIDTH = 2, 32
_CROP, _ORDER = range(2)  # random streams
_TARGET_EPSILON = 1e-6


class Decoder(nn.Module):
    """Visible tokens (n, P + V, D) and their patches (n, V) -> pixels of all patches (n, N, 3 p
    p).
    """

    def __init__(self, n_features: int, width: int, side: int, patch: int) -> None:
        super().__init__()
        self.embed = nn.Linear(n_features, width)
        self.hidden = nn.Parameter(torch.zeros(width))
        layer = nn.TransformerEncoderLayer(
            width,
            width // _HEAD_WIDTH,
            4 * width,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.blocks = nn.TransformerEncoder(
            layer, _DEPTH, norm=nn.LayerNorm(width), enable_nested_tensor=False
        )
        self.pixels = nn.Linear(width, 3 * patch * patch)
        self.register_buffer("positions", sincos_position_embedding(side, width), persistent=False)
        nn.init.trunc_normal_(self.hidden, std=0.02)

    positions: torch.Tensor

    def forward(self, tokens: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """Every patch has its place added; those that were not seen start from one learned
        token.
        """
        embedded = self.embed(tokens)
        n_prefix = embedded.shape[1] - visible.shape[1]
        index = visible[:, :, None].expand(-1, -1, embedded.shape[2])
        blank = self.hidden.to(embedded.dtype).expand(len(tokens), len(self.positions), -1)
        patches = blank.scatter(1, index, embedded[:, n_prefix:]) + self.positions
        decoded = self.blocks(torch.cat([embedded[:, :n_prefix], patches], dim=1))
        return torch.Tensor(self.pixels(decoded[:, n_prefix:]))


class MaskedAutoencoder(nn.Module):
    """Backbone and decoder, and `classes`, from CLS features to labels, where there are any."""

    def __init__(
        self, backbone: PreTrainedModel, decoder: Decoder, classes: nn.Linear | None = None
    ) -> None:
        super().__init__()
        self.backbone, self.decoder, self.classes = backbone, decoder, classes
        self.n_prefix = n_prefix_tokens(backbone)

    def train(self, mode: bool = True) -> "MaskedAutoencoder":
        """Nothing in a backbone is random while it learns: its own drop-outs would depend on the
        process.
        """
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(
        self, pixels: torch.Tensor, visible: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Pixels (n, 3, S, S) and visible patches (n, V) -> pixels of all patches (n, N, 3 p p),
        and logits of the classes (n, C) or None."""

        def leave_out(_module: nn.Module, _inputs: object, tokens: torch.Tensor) -> torch.Tensor:
            index = visible[:, :, None].expand(-1, -1, tokens.shape[2])
            return torch.cat(
                [tokens[:, : self.n_prefix], tokens[:, self.n_prefix :].gather(1, index)], dim=1
            )

        embeddings = next(
            m
            for name, m in self.backbone.named_modules()
            if name.rsplit(".", 1)[-1] == "embeddings"
        )
        handle = embeddings.register_forward_hook(leave_out)
        try:
            tokens = tokens_of(self.backbone, pixels)
        finally:
            handle.remove()
        return self.decoder(tokens, visible), (
            None if self.classes is None else self.classes(tokens[:, 0])
        )


class MaeTask:
    """Reconstruction of hidden patches of random crops."""

    monitor = None  # without labels no epoch is better than another: the last one is exported

    def __init__(
        self, config: PretrainExploraConfig, module: MaskedAutoencoder, pixels: Pixels, world: World
    ) -> None:
        self.config, self.pixels, self.world = config, pixels, world
        self.module: nn.Module = module
        self.autoencoder = module
        self.n_samples = len(pixels.images)
        self.batch_size = min(config.global_batch_size, self.n_samples)
        self.patch = module.backbone.config.patch_size
        self.n_patches = len(module.decoder.positions)
        self.n_visible = max(1, round(self.n_patches * (1 - config.explora_mask_ratio)))
        self.watch = CollapseMonitor(pixels, module.backbone, world)

    def loss(
        self, model: nn.Module, positions: Positions, batch_slots: Positions, step: int
    ) -> torch.Tensor:
        """Summed over the images: mean squared error of the hidden patches' normalised pixels, and
        of labels, where it is given any, cross-entropy."""
        seed, size = self.config.seed, self.pixels.size
        crops = self.pixels.crops(
            positions, batch_slots, (seed, step, _CROP), size, "crop", self.batch_size
        )
        order = masks.random_order((seed, step, _ORDER), self.batch_size, self.n_patches)[
            batch_slots
        ]
        visible, hidden = np.split(order, [self.n_visible], axis=1)
        painted, named = model(crops, torch.from_numpy(visible).to(crops.device))
        painted = painted.float()
        index = (
            torch.from_numpy(hidden).to(crops.device)[:, :, None].expand(-1, -1, painted.shape[2])
        )
        error = painted.gather(1, index) - patches_of(crops, self.patch).gather(1, index)
        loss = error.square().mean(dim=(1, 2)).sum()
        return torch.Tensor(
            loss if named is None else loss + self.pixels.label_loss(named, positions)
        )

    def evaluate(self) -> dict[str, float]:
        """How far the features tell images apart; PermanentError where they do not any more."""
        return self.watch.check(self.autoencoder.backbone)


def patches_of(pixels: torch.Tensor, patch: int) -> torch.Tensor:
    """(n, 3, S, S) -> (n, N, 3 p p): the patches' pixels with mean 0 and variance 1 in each."""
    side = pixels.shape[-1] // patch
    whole = pixels[..., : side * patch, : side * patch]
    flat = nn.functional.unfold(whole, patch, stride=patch).transpose(1, 2)
    variance, mean = torch.var_mean(flat, dim=2, keepdim=True)
    return (flat - mean) / (variance + _TARGET_EPSILON).sqrt()


def sincos_position_embedding(side: int, width: int) -> torch.Tensor:
    """(side * side, width): sine and cosine of row and column at width / 4 frequencies."""
    n = width // 4
    phase = torch.arange(side)[:, None] * torch.exp(-math.log(10000.0) * torch.arange(n) / n)
    wave = torch.cat([phase.sin(), phase.cos()], dim=1)
    rows, columns = torch.arange(side * side) // side, torch.arange(side * side) % side
    return torch.cat([wave[rows], wave[columns]], dim=1)

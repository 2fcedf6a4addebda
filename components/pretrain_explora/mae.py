"""Masked autoencoding: the backbone sees a quarter of the patches, a decoder reconstructs the rest.

MAE (He et al. 2022, arXiv 2111.06377): hidden patches do not enter the backbone, which saves their
computation; targets are pixels, normalised per patch. Lighter than self-distillation.

Why no library: transformers' ViTMAE is an architecture of its own that would not hold a DINOv2
backbone with adapters, and lightly requires torchvision, which is not a dependency of this project.
"""

import math

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from components.pretrain_explora import masks
from components.pretrain_explora.collapse_monitor import CollapseMonitor
from components.pretrain_explora.config import PretrainExploraConfig
from components.pretrain_explora.train_crops import Positions, TrainCrops
from components.shared.contracts.random_streams import MaeStream
from components.shared.models.backbone import n_prefix_tokens, tokens_of
from components.shared.training.loop.distributed import World

_DEPTH, _HEAD_WIDTH = 2, 32  # of the decoder: blocks, and features per attention head
_TARGET_EPSILON = 1e-6  # added to a patch's variance, as published


class Decoder(nn.Module):
    """A small transformer from the backbone's tokens to the pixels of all patches."""

    positions: torch.Tensor

    def __init__(self, n_features: int, width: int, side: int, patch: int) -> None:
        super().__init__()
        self.embed = nn.Linear(n_features, width)
        self.mask_token = nn.Parameter(torch.zeros(width))
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
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def forward(self, tokens: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """Return the pixels (n, N, 3 p p) of all N patches of p x p pixels.

        Hidden patches start from one learned token; all have the embedding of their position added.

        Args:
            tokens: (n, P + V, D) of P prefix tokens and V visible patches.
            visible: (n, V) int64 indices of the visible patches.
        """
        embedded = self.embed(tokens)
        n_prefix = embedded.shape[1] - visible.shape[1]
        index = visible[:, :, None].expand(-1, -1, embedded.shape[2])

        masked = self.mask_token.to(embedded.dtype).expand(len(tokens), len(self.positions), -1)
        patches = masked.scatter(1, index, embedded[:, n_prefix:]) + self.positions
        decoded = self.blocks(torch.cat([embedded[:, :n_prefix], patches], dim=1))
        return torch.Tensor(self.pixels(decoded[:, n_prefix:]))


class MaskedAutoencoder(nn.Module):
    """Backbone, decoder and, with labels, a class head on the CLS features."""

    def __init__(
        self, backbone: PreTrainedModel, decoder: Decoder, class_head: nn.Linear | None = None
    ) -> None:
        super().__init__()
        self.backbone, self.decoder, self.class_head = backbone, decoder, class_head
        self.n_prefix = n_prefix_tokens(backbone)

    def train(self, mode: bool = True) -> "MaskedAutoencoder":
        """Set the training mode of all but the backbone, whose dropout stays off.

        Dropout inside the backbone would depend on the process.
        """
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(
        self, pixels: torch.Tensor, visible: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the reconstruction (n, N, 3 p p), and class logits (n, C) or None.

        Args:
            pixels: (n, 3, S, S) normalised images.
            visible: (n, V) int64 indices of the patches that the backbone sees.
        """

        def select_visible(_module: nn.Module, _args: object, tokens: torch.Tensor) -> torch.Tensor:
            index = visible[:, :, None].expand(-1, -1, tokens.shape[2])
            patches = tokens[:, self.n_prefix :].gather(1, index)
            return torch.cat([tokens[:, : self.n_prefix], patches], dim=1)

        # A hook after the embeddings, so that patches have the embeddings of their own positions.
        embeddings = next(
            module
            for name, module in self.backbone.named_modules()
            if name.rsplit(".", 1)[-1] == "embeddings"
        )

        handle = embeddings.register_forward_hook(select_visible)
        try:
            tokens = tokens_of(self.backbone, pixels)
        finally:
            handle.remove()

        reconstruction = self.decoder(tokens, visible)

        return reconstruction, None if self.class_head is None else self.class_head(tokens[:, 0])


class MaeTask:
    """The task of reconstructing hidden patches of random crops."""

    monitor = None  # without labels no epoch is better than another: the last one is exported

    def __init__(
        self,
        config: PretrainExploraConfig,
        module: MaskedAutoencoder,
        crops: TrainCrops,
        world: World,
    ) -> None:
        self.config, self.crops, self.world = config, crops, world
        self.module: nn.Module = module
        self.autoencoder = module
        self.reader = crops.reader()
        self.n_samples = len(crops.images)
        self.batch_size = min(config.global_batch_size, self.n_samples)
        self.patch = module.backbone.config.patch_size
        self.n_patches = len(module.decoder.positions)
        self.n_visible = max(1, round(self.n_patches * (1 - config.explora_mask_ratio)))
        self.collapse_monitor = CollapseMonitor(crops, module.backbone, world)

    def loss(
        self, model: nn.Module, positions: Positions, batch_slots: Positions, step: int
    ) -> torch.Tensor:
        """Return the mean squared error of the hidden patches, plus label loss, over the images.

        Targets are the patches' normalised pixels (He et al. 2022, section 3). Both losses are
        summed over the images; the label loss is cross-entropy and needs labels.
        """
        seed, size = self.config.seed, self.crops.size
        with self.world.timings.part("data"):
            images = self.reader.images(positions)
            pixels = self.crops.draw(
                images, batch_slots, (seed, step, MaeStream.CROP), size, ("plain",), self.batch_size
            )

        order = masks.random_order(
            (seed, step, MaeStream.PATCH_ORDER), self.batch_size, self.n_patches
        )
        visible, hidden = np.split(order[batch_slots], [self.n_visible], axis=1)
        shown = torch.from_numpy(visible).to(pixels.device, non_blocking=True)
        reconstruction, class_logits = model(pixels, shown)
        reconstruction = reconstruction.float()

        index = torch.from_numpy(hidden).to(pixels.device, non_blocking=True)[:, :, None]
        index = index.expand(-1, -1, reconstruction.shape[2])
        targets = normalised_patches(pixels, self.patch)
        error = reconstruction.gather(1, index) - targets.gather(1, index)
        loss = error.square().mean(dim=(1, 2)).sum()

        if class_logits is not None:
            loss = loss + self.crops.label_loss(class_logits, positions)

        return torch.Tensor(loss)

    def evaluate(self) -> dict[str, float]:
        """Return the measures of `CollapseMonitor`; raises PermanentError after a collapse."""
        return self.collapse_monitor.check(self.autoencoder.backbone)


def normalised_patches(pixels: torch.Tensor, patch: int) -> torch.Tensor:
    """Return the patches (n, N, 3 p p) of images (n, 3, S, S), each with mean 0 and variance 1."""
    side = pixels.shape[-1] // patch
    covered = pixels[..., : side * patch, : side * patch]
    flat = nn.functional.unfold(covered, patch, stride=patch).transpose(1, 2)
    variance, mean = torch.var_mean(flat, dim=2, keepdim=True)
    return (flat - mean) / (variance + _TARGET_EPSILON).sqrt()


def sincos_position_embedding(side: int, width: int) -> torch.Tensor:
    """Return (side * side, width): sine and cosine of row and column at width / 4 frequencies."""
    n = width // 4
    phase = torch.arange(side)[:, None] * torch.exp(-math.log(10000.0) * torch.arange(n) / n)
    wave = torch.cat([phase.sin(), phase.cos()], dim=1)
    rows, columns = torch.arange(side * side) // side, torch.arange(side * side) % side
    return torch.cat([wave[rows], wave[columns]], dim=1)

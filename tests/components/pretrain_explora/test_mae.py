"""Masked autoencoding: normalised patches, and a backbone that sees visible patches alone."""

import numpy as np
import torch
from transformers import Dinov2Config, Dinov2Model

from components.pretrain_explora.config import PretrainExploraConfig
from components.pretrain_explora.explora import prepare_explora
from components.pretrain_explora.mae import Decoder, MaeTask, MaskedAutoencoder, normalised_patches
from components.pretrain_explora.train_crops import TrainCrops
from components.shared.data.train_images import TrainImages
from components.shared.training.loop.distributed import World
from tests.golden.make import FOLDER

WORLD = World(0, 1, torch.device("cpu"))


def _crops() -> TrainCrops:
    return TrainCrops(
        TrainImages.open(FOLDER / "train_images"), 16, (0.5,) * 3, (0.25,) * 3, WORLD.device
    )


def test_patches_are_normalised_each_by_itself_in_reading_order() -> None:
    image = torch.arange(2 * 3 * 8 * 8).float().view(2, 3, 8, 8)
    patches = normalised_patches(image, 4)
    assert patches.shape == (2, 4, 48)
    first = image[0, :, :4, 4:].flatten()
    torch.testing.assert_close(patches[0, 1], (first - first.mean()) / first.std())


def test_the_backbone_sees_only_the_visible_patches() -> None:
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        patch_size=4,
        image_size=16,
        mlp_ratio=2,
    )
    backbone = prepare_explora(Dinov2Model(config), rank=2, alpha=2.0, unfrozen_blocks=1)
    task = MaeTask(
        PretrainExploraConfig(explora_objective="mae", global_batch_size=8),
        MaskedAutoencoder(backbone, Decoder(32, 32, 4, 4)),
        _crops(),
        WORLD,
    )
    assert (task.n_patches, task.n_visible) == (16, 4)
    task.module.eval()
    pixels = torch.randn(1, 3, 16, 16)
    visible = torch.tensor([[0, 5, 10, 15]])
    with torch.no_grad():
        before = task.module(pixels, visible)[0]
        pixels[:, :, :4, 4:8] = 9.0  # patch 1 is hidden
        torch.testing.assert_close(task.module(pixels, visible)[0], before)
        pixels[:, :, :4, :4] = 9.0  # patch 0 is not
        assert not torch.allclose(task.module(pixels, visible)[0], before)
    chunks = [task.loss(task.module, slots, slots, 2) for slots in np.array_split(np.arange(8), 3)]
    torch.testing.assert_close(sum(chunks), task.loss(task.module, np.arange(8), np.arange(8), 2))

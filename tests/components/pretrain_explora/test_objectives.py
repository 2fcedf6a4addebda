"""Objectives against worked numbers, and random draws as functions of the batch slot."""

import numpy as np
import pytest
import torch
from transformers import Dinov2Config, Dinov2Model

from components.pretrain_explora import masks, objectives
from components.pretrain_explora.config import PretrainExploraConfig
from components.pretrain_explora.explora import prepare_explora
from components.pretrain_explora.mae import Decoder, MaeTask, MaskedAutoencoder, normalised_patches
from components.pretrain_explora.train_crops import TrainCrops
from components.shared.contracts.errors import ConfigError
from components.shared.data.train_images import TrainImages
from components.shared.training.loop.distributed import World
from tests.golden.make import FOLDER

WORLD = World(0, 1, torch.device("cpu"))


def test_sinkhorn_gives_every_prototype_its_share_however_the_teacher_leans() -> None:
    logits = torch.rand(64, 8, generator=torch.Generator().manual_seed(0)) * 0.2
    logits[:, 0] += 0.7  # plain softmax would give nearly all to the first
    targets = objectives.sinkhorn(logits, 0.07, WORLD)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(64))
    assert (targets.mean(dim=0) - 1 / 8).abs().max() < 0.02
    assert torch.softmax(logits / 0.07, dim=1)[:, 0].mean() > 0.9


def test_sinkhorn_of_two_by_two() -> None:
    # Rows and columns of equal weight and the odds ratio of [[1, 1/4], [1/2, 1/4]], which is 2: x /
    # (1 - x) = sqrt(2).
    logits = 1 + torch.log(torch.tensor([[1.0, 0.25], [0.5, 0.25]]))
    expected = torch.tensor([[0.5857865, 0.4142135], [0.4142135, 0.5857865]])
    torch.testing.assert_close(objectives.sinkhorn(logits, 1.0, WORLD), expected, rtol=0, atol=2e-3)


def test_the_running_centre_is_taken_off_before_it_moves() -> None:
    centre = torch.tensor([0.1, 0.0])
    logits = torch.tensor([[0.3, 0.2], [0.5, 0.0]])
    targets = objectives.centered(logits, centre, 0.1, WORLD)
    torch.testing.assert_close(
        targets, torch.softmax((logits - torch.tensor([0.1, 0.0])) / 0.1, dim=1)
    )
    torch.testing.assert_close(centre, torch.tensor([0.9 * 0.1 + 0.1 * 0.4, 0.1 * 0.1]))


def test_cross_entropy_is_least_where_the_student_agrees() -> None:
    targets = torch.tensor([[0.9, 0.1]])
    agreeing = torch.log(targets) * objectives.STUDENT_TEMPERATURE
    entropy = -(targets * targets.log()).sum()
    torch.testing.assert_close(objectives.cross_entropy(agreeing, targets), entropy[None])
    assert objectives.cross_entropy(agreeing.flip(1), targets) > entropy


def test_koleo_is_minus_the_log_of_the_distance_to_the_nearest_other() -> None:
    points = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])
    loss = objectives.koleo(points[:2], points, torch.tensor([0, 1]))
    torch.testing.assert_close(loss, -torch.log(torch.tensor([2.0, 2.0])) / 2, rtol=0, atol=1e-6)
    alone = objectives.koleo(points[:1], points[:1], torch.tensor([0]))
    assert alone.tolist() == [0.0]


def test_koleo_pushes_neighbours_apart() -> None:
    angles = torch.linspace(0, 0.1, 5)
    for _ in range(200):
        angles.requires_grad_(True)
        points = torch.stack([angles.cos(), angles.sin()], dim=1)
        (gradient,) = torch.autograd.grad(
            objectives.koleo(points, points.detach(), torch.arange(5)).sum(), angles
        )
        angles = (angles - 0.01 * gradient.clamp(-5, 5)).detach()
    assert angles.sort().values.diff().min() > 0.2


def test_masks_are_blocks_of_the_wanted_size_in_half_of_the_crops() -> None:
    drawn = np.stack(
        [masks.block_mask((0, step, 7, place), 16) for step in range(10) for place in range(40)]
    )
    shares = drawn.mean(axis=1)
    assert 0.4 < (shares > 0).mean() < 0.6
    assert shares[shares > 0].min() > 0.05
    assert shares.max() <= 0.55
    assert 0.2 < shares[shares > 0].mean() < 0.4
    np.testing.assert_array_equal(drawn[41], masks.block_mask((0, 1, 7, 1), 16))


def _crops() -> TrainCrops:
    return TrainCrops(
        TrainImages.open(FOLDER / "train_images"), 16, (0.5,) * 3, (0.25,) * 3, WORLD.device
    )


@pytest.mark.parametrize("strength", ["global", "local", "crop"])
def test_a_crop_depends_on_its_place_in_the_global_batch_alone(strength: str) -> None:
    crops, key = _crops(), (3, 5, 1)
    whole = crops.draw(np.arange(8), np.arange(8), key, 12, strength, 8)
    part = crops.draw(np.array([4, 5]), np.array([4, 5]), key, 12, strength, 8)
    torch.testing.assert_close(part, whole[4:6])
    assert whole.shape == (8, 3, 12, 12)
    assert not torch.equal(
        whole, crops.draw(np.arange(8), np.arange(8), (3, 6, 1), 12, strength, 8)
    )


def test_undistorted_pixels_are_normalised() -> None:
    crops = _crops()
    raw = torch.from_numpy(crops.images.images(np.array([3]))).permute(0, 3, 1, 2).float() / 255
    torch.testing.assert_close(crops.full_images(np.array([3])), (raw - 0.5) / 0.25)


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"explora_decoder_width": 48}, "explora_decoder_width=48 must be a multiple of 32"),
        ({"precision": "fp16"}, "precision='fp16' is refused"),
        ({"explora_teacher_temperature": 0.2}, "explora_teacher_temperature=0.2 must be <= 0.1"),
        ({"explora_objective": "simclr"}, "must be one of dino, mae"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PretrainExploraConfig.from_mapping(changes)

"""Crops are functions of their batch slot; full images are normalised."""

import numpy as np
import pytest
import torch

from components.pretrain_explora import crop_augmentation
from components.pretrain_explora.train_crops import TrainCrops
from components.shared.data.train_images import TrainImages
from components.shared.training.loop.distributed import World
from tests.golden.make import FOLDER

WORLD = World(0, 1, torch.device("cpu"))


def _crops() -> TrainCrops:
    return TrainCrops(
        TrainImages.open(FOLDER / "train_images"), 16, (0.5,) * 3, (0.25,) * 3, WORLD.device
    )


@pytest.mark.parametrize("kind", list(crop_augmentation.KINDS))
def test_a_crop_depends_on_its_place_in_the_global_batch_alone(kind: str) -> None:
    crops, key = _crops(), (3, 5, 1)
    images = torch.from_numpy(crops.images.images(np.arange(8)))
    whole = crops.draw(images, np.arange(8), key, 12, (kind,), 8)
    part = crops.draw(images[4:6], np.array([4, 5]), key, 12, (kind,), 8)
    torch.testing.assert_close(part, whole[4:6])
    assert whole.shape == (8, 3, 12, 12)
    assert not torch.equal(whole, crops.draw(images, np.arange(8), (3, 6, 1), 12, (kind,), 8))


def test_crops_of_several_kinds_are_those_of_each_kind_alone() -> None:
    crops = _crops()
    images = torch.from_numpy(crops.images.images(np.arange(8)))
    kinds = ("first_large", "small", "small")
    together = crops.draw(images, np.arange(8), (3, 5, 1), 12, kinds, 8)
    alone = [
        crops.draw(images, np.arange(8), (3, 5, stream), 12, (kind,), 8)
        for stream, kind in enumerate(kinds, 1)
    ]
    torch.testing.assert_close(together, torch.stack(alone, dim=1).flatten(0, 1))
    assert crops.draw(images, np.arange(8), (3, 5, 1), 12, (), 8).shape == (0, 3, 12, 12)


def test_undistorted_pixels_are_normalised() -> None:
    crops = _crops()
    raw = torch.from_numpy(crops.images.images(np.array([3]))).permute(0, 3, 1, 2).float() / 255
    torch.testing.assert_close(crops.full_images(np.array([3])), (raw - 0.5) / 0.25)

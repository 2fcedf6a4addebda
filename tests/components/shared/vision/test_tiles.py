"""Views cover an image exactly, and are its pixels."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from components.shared.data.decode import resize
from components.shared.vision.tiles import cut_views
from components.shared.vision.view_spec import ViewSpec, tile_boxes

SPEC = ViewSpec(
    grid=3,
    overlap=0.0,
    flips=False,
    size=8,
    aggregation="max",
    top_k=1,
    sharpness=1.0,
    positive_class="Roadwork",
)


def _image(size: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [24, 25, 56, 223, 672])
@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("grid", [2, 3, 5])
def test_every_pixel_is_in_a_tile_and_every_tile_in_the_image(
    size: int, overlap: float, grid: int
) -> None:
    seen = np.zeros((size, size), dtype=int)
    boxes = tile_boxes(size, dataclasses.replace(SPEC, grid=grid, overlap=overlap))
    assert len(boxes) == grid**2
    for left, top, side in boxes:
        assert min(left, top) >= 0
        assert max(left, top) + side <= size
        seen[top : top + side, left : left + side] += 1
    assert seen.min() == 1
    if overlap == 0 and size % grid == 0:
        assert seen.max() == 1


def test_overlap_is_the_share_of_a_tile_that_its_neighbour_has() -> None:
    boxes = tile_boxes(700, dataclasses.replace(SPEC, overlap=0.25))
    assert [box[0] for box in boxes[:3]] == [0, 210, 420]
    assert {box[2] for box in boxes} == {280}


def test_views_are_the_image_its_tiles_and_their_mirror_images() -> None:
    image = _image(24)
    views = cut_views(image, dataclasses.replace(SPEC, flips=True))
    assert views.shape == (1, 20, 3, 8, 8)
    # Tiles of the very size of a view are its pixels, by rows.
    assert torch.equal(views[:, 1], image[..., :8, :8])
    assert torch.equal(views[:, 2], image[..., :8, 8:16])
    assert torch.equal(views[:, 9], image[..., 16:, 16:])
    assert torch.equal(views[:, 10:], views[:, :10].flip(-1))


def test_a_part_of_the_views_is_that_part() -> None:
    images = torch.cat([_image(30, seed) for seed in range(2)])
    views = cut_views(images, SPEC)
    assert torch.equal(
        torch.cat([cut_views(images, SPEC, last=1), cut_views(images, SPEC, first=1)], dim=1), views
    )


def test_the_whole_is_resized_as_a_decoded_image_is() -> None:
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).resize((96, 96))
    views = cut_views(
        torch.from_numpy(np.asarray(photo) / np.float32(255)).permute(2, 0, 1)[None], SPEC
    )
    expected = resize(photo, SPEC.size).astype(np.float32)
    assert (
        np.abs(views[0, 0].permute(1, 2, 0).numpy() * 255 - expected).max() < 1.01
    )  # Pillow rounds twice

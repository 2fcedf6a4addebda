"""Views cover an image exactly, and are its pixels."""

import dataclasses

import numpy as np
import torch
from PIL import Image

from components.shared.data.decode import resize
from components.shared.vision.tiles import cut_views
from components.shared.vision.view_spec import ViewSpec

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

"""Images at another size than the stored one equal those that ingest stores at that size."""

import csv

import numpy as np
import pytest
from PIL import Image

from components.ingest_dataset.config import IngestConfig
from components.ingest_dataset.step import run as ingest_dataset
from components.shared.data.dataset import Dataset


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Dataset]:
    """The same eight smooth scenes stored at several sizes."""
    root = tmp_path_factory.mktemp("stored")
    rng = np.random.default_rng(0)
    (root / "img").mkdir()
    rows = [["path", "label"]]
    for number in range(8):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        scene = coarse.resize((320, 240), Image.Resampling.BICUBIC)
        scene.save(root / f"img/{number}.png")
        rows.append([f"img/{number}.png", str(number % 2)])
    with (root / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)

    for size in (56, 112, 140):
        config = IngestConfig(data=str(root), image_size=size)
        ingest_dataset(config, dataset=root / str(size))
    return {size: Dataset.open(root / str(size)) for size in (56, 112, 140)}


@pytest.mark.parametrize("size", [112, 140])
def test_resized_images_equal_those_stored_at_that_size(
    stored: dict[int, Dataset], size: int
) -> None:
    positions = np.array([5, 0, 3])
    view = stored[size].resized(56)
    found = view.images(positions)

    assert view.image_size == 56
    assert view.samples == stored[size].samples
    assert view.index == stored[size].index
    assert found.shape == (3, 56, 56, 3)
    difference = np.abs(found.astype(int) - stored[56].images(positions))
    assert difference.mean() < 1  # of 255, as the docstring states
    assert difference.max() <= 12

    out = np.zeros((3, 56, 56, 3), dtype=np.uint8)
    assert view.images(positions, out) is out
    np.testing.assert_array_equal(out, found)


def test_the_stored_size_is_no_view_and_views_do_not_resize_twice(
    stored: dict[int, Dataset],
) -> None:
    data, every = stored[140], np.arange(8)
    assert data.resized(140) is data
    assert data.resized(112).resized(140) is data
    np.testing.assert_array_equal(
        data.resized(112).resized(56).images(every), data.resized(56).images(every)
    )

"""Tiles cover an image exactly, and overlap as specified."""

import dataclasses

import numpy as np
import pytest

from components.shared.vision.view_spec import ViewSpec, tile_boxes, view_box

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


def test_the_box_of_a_view() -> None:
    views = dataclasses.replace(SPEC, grid=2, flips=True)
    assert view_box(56, None, 0) == (0, 0, 56, False)
    assert [view_box(56, views, number) for number in (0, 2, 5, 9)] == [
        (0, 0, 56, False),
        (28, 0, 28, False),
        (0, 0, 56, True),
        (28, 28, 28, True),
    ]

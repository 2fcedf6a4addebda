"""The picture of an explanation, read back as pixels."""

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from components.shared.data.contribution_colours import AGAINST, FOR
from components.shared.serving.explanation import Explanation
from components.shared.serving.explanation_picture import read_photograph, write_picture

PATCHES = np.zeros((4, 4))
PATCHES[0, 0], PATCHES[3, 3] = 0.5, -0.5
PLAIN = Explanation(
    outcome="Roadwork",
    cls=0.0,
    patches=PATCHES,
    constant=-0.1,
    from_threshold=True,
    box=(0.0, 0.0, 1.0),
    view=None,
    view_weight=1.0,
)
GREY = np.full((120, 160, 3), 128, dtype=np.uint8)


def _drawn(
    tmp_path: Path, explanation: Explanation, photograph: npt.NDArray[np.uint8] = GREY
) -> npt.NDArray[np.int64]:
    file = tmp_path / "why.png"
    write_picture(file, photograph, explanation, "photo.jpg: Roadwork")
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB")).astype(np.int64)


def _centre(picture: npt.NDArray[np.int64], colour: tuple[int, int, int]) -> tuple[float, float]:
    """Mean (row, column) of the pixels of a hue at 85 % over middle grey, left of the bar."""
    over_grey = np.array(colour) * 0.85 + 128 * 0.15
    near = np.abs(picture[:, :990] - over_grey).max(axis=2) <= 4
    assert near.sum() > 1000
    rows, columns = np.nonzero(near)
    return float(rows.mean()), float(columns.mean())


def test_the_colours_lie_where_the_patches_lie(tmp_path: Path) -> None:
    picture = _drawn(tmp_path, PLAIN)
    for_, against = _centre(picture, FOR), _centre(picture, AGAINST)
    assert for_[0] < against[0]
    assert for_[1] < against[1]
    # In the right half, whose patches keep the photograph's shape.
    assert min(for_[1], against[1]) > 500
    wide, high = against[1] - for_[1], against[0] - for_[0]
    assert wide / high == pytest.approx(160 / 120, rel=0.02)


def test_the_photograph_itself_is_left_as_it_is(tmp_path: Path) -> None:
    photograph = np.zeros((60, 80, 3), dtype=np.uint8)
    photograph[...] = (10, 200, 60)
    picture = _drawn(tmp_path, PLAIN, photograph)
    same = np.abs(picture - (10, 200, 60)).max(axis=2) <= 2
    assert same[:, :500].sum() > 50_000
    assert same[:, 505:].sum() == 0  # grey under the colours


def test_a_tile_is_framed_and_enlarged(tmp_path: Path) -> None:
    photograph = np.zeros((100, 100, 3), dtype=np.uint8)
    photograph[...] = beside = (90, 0, 60)
    photograph[50:, 50:] = 128  # the tile
    tile = dataclasses.replace(PLAIN, box=(0.5, 0.5, 0.5), view=4, view_weight=0.75)
    picture = _drawn(tmp_path, tile, photograph)
    frame = np.abs(picture - (255, 213, 0)).max(axis=2) <= 30
    rows, columns = np.nonzero(frame)
    whole = np.nonzero(np.abs(picture - beside).max(axis=2) <= 2)
    left, top = whole[1].min(), whole[0].min()
    side = max(rows.max() - top, columns.max() - left)
    assert (columns.min() - left) / side == pytest.approx(0.5, abs=0.03)
    assert (rows.min() - top) / side == pytest.approx(0.5, abs=0.03)
    _centre(picture, FOR)


@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (400, 3)])
@pytest.mark.parametrize("box", [(0.0, 0.0, 1.0), (0.6, 0.6, 0.4)])
def test_any_shape_is_drawn(
    shape: tuple[int, int], box: tuple[float, float, float], tmp_path: Path
) -> None:
    photograph = np.full((*shape, 3), 9, dtype=np.uint8)
    found = dataclasses.replace(PLAIN, box=box, view=3, patches=np.zeros((1, 1)))
    assert _drawn(tmp_path, found, photograph).shape == (539, 1100, 3)


def test_a_name_is_no_formula(tmp_path: Path) -> None:
    _drawn(tmp_path, dataclasses.replace(PLAIN, outcome=r"$\frac$ \n" + "long" * 90))


def test_a_large_photograph_is_reduced_and_keeps_its_shape(tmp_path: Path) -> None:
    Image.new("RGB", (4000, 1000), (9, 99, 199)).save(tmp_path / "large.jpg")
    assert read_photograph((tmp_path / "large.jpg").read_bytes()).shape == (256, 1024, 3)


def test_colours_fade_where_the_cls_token_outweighs_the_patches(tmp_path: Path) -> None:
    def saturation(cls: float) -> int:
        picture = _drawn(tmp_path, dataclasses.replace(PLAIN, cls=cls))[100:, 505:990]
        return int((picture.max(axis=2) - picture.min(axis=2)).max())

    # All patches together have the size 1; a tenth of the colour is left beside a CLS part of 9.
    assert saturation(0.0) > 150
    assert saturation(9.0) < 25

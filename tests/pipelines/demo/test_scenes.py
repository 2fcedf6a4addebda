"""The drawn scenes show what their labels say, and frames of a drive resemble each other."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.demo import roadwork
from pipelines.demo.scenes import FRAMES_PER_DRIVE, Scene, drive_of, photograph, scene_of


def _pixels(scene: Scene) -> NDArray[np.float64]:
    return np.asarray(photograph(scene), dtype=np.float64)


def _without_works(scene: Scene) -> Scene:
    return replace(
        scene,
        objects=tuple(item for item in scene.objects if item.kind not in roadwork.PAINTERS),
    )


@pytest.mark.parametrize("drive", range(0, 24, 2))
def test_roadwork_is_visible_exactly_where_the_label_says_so(drive: int) -> None:
    for frame in range(0, FRAMES_PER_DRIVE, 4):
        scene = scene_of(0, drive, frame)
        changed = np.abs(_pixels(scene) - _pixels(_without_works(scene))).max(axis=2) > 25
        if scene.label:
            assert changed.mean() > 0.004, f"frame {frame}: {changed.sum()} pixels of roadwork"
        else:
            assert not changed.any()


def test_sites_differ_in_size() -> None:
    shares = []
    for drive in range(20):
        scene = next(s for s in (scene_of(1, drive, f) for f in range(FRAMES_PER_DRIVE)) if s.label)
        shares.append(
            (np.abs(_pixels(scene) - _pixels(_without_works(scene))).max(axis=2) > 25).mean()
        )
    assert max(shares) > 5 * min(shares)


def test_lookalikes_occur_with_and_without_roadwork() -> None:
    kinds = ("school_bus", "awning", "umbrella", "warning_sign", "traffic_light", "bin")
    scenes = [scene_of(0, drive, frame) for drive in range(30) for frame in (0, 10)]
    for label in (0, 1):
        found = {item.kind for scene in scenes if scene.label == label for item in scene.objects}
        assert found >= set(kinds)


def test_consecutive_frames_of_a_place_are_nearly_alike_and_drives_are_not() -> None:
    starts = [start for start, _ in drive_of(0, 5).locations]
    first = next(a for a, b in itertools.pairwise(starts) if b - a > 1)
    one, next_, other = (
        _pixels(scene_of(0, 5, first)),
        _pixels(scene_of(0, 5, first + 1)),
        _pixels(scene_of(0, 6, first)),
    )
    assert np.abs(one - next_).mean() < 0.5 * np.abs(one - other).mean()


def test_an_out_of_focus_photograph_has_no_detail() -> None:
    scene = scene_of(0, 1, 1)
    blurred = np.asarray(photograph(scene, out_of_focus=True), dtype=np.float64)
    assert (
        np.abs(np.diff(blurred.mean(axis=2).reshape(28, 8, 40, 8).mean((1, 3)))).mean()
        < np.abs(np.diff(_pixels(scene).mean(axis=2).reshape(28, 8, 40, 8).mean((1, 3)))).mean()
    )

"""Time of an answer to one image."""

import itertools
import time

import numpy as np
import numpy.typing as npt
import pytest

from components.shared.serving.answer import Answer
from components.shared.serving.latency import N_TIMED, median_latency_ms


class _Slow:
    """Answers whose times are given; it stands for the predictors of the forms."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, milliseconds: list[float]) -> None:
        self._milliseconds, self._now, self.shapes = milliseconds, 0.0, list[tuple[int, ...]]()
        monkeypatch.setattr(time, "perf_counter", lambda: self._now)

    def pixels(self, data: bytes) -> npt.NDArray[np.uint8]:
        raise NotImplementedError(data)

    def answers(self, pixels: npt.NDArray[np.uint8], *, all_views: bool = False) -> list[Answer]:
        self._now += self._milliseconds[len(self.shapes)] / 1000
        self.shapes.append(pixels.shape)
        return []


def test_the_first_answer_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = _Slow(monkeypatch, [9000, 1, 2, 30])
    images = np.zeros((3, 1, 4, 4, 3), np.uint8)
    assert median_latency_ms(predictor, images) == pytest.approx(2)
    assert predictor.shapes == [(1, 4, 4, 3)] * 4


def test_no_more_images_are_taken_than_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = _Slow(monkeypatch, [5] * (N_TIMED + 1))
    endless = itertools.repeat(np.zeros((1, 4, 4, 3), np.uint8))
    assert median_latency_ms(predictor, endless) == pytest.approx(5)

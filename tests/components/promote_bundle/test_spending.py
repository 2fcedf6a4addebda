"""Alpha spending: all levels together are the budget, however long the series lasts."""

import numpy as np
import pytest

from components.promote_bundle.spending import level, remaining


def test_levels_and_the_rest_are_the_budget() -> None:
    for count in (1, 10, 500):
        spent = sum(level(number, 0.05) for number in range(1, count + 1))
        assert spent + remaining(count, 0.05) == pytest.approx(0.05)


def test_levels_fall_and_scale_with_the_budget() -> None:
    levels = np.array([level(number, 0.05) for number in range(1, 2000)])
    assert (np.diff(levels) < 0).all()
    assert levels[0] == pytest.approx(0.05 * (1 - 2**-0.5))
    assert level(7, 0.1) == pytest.approx(2 * level(7, 0.05))

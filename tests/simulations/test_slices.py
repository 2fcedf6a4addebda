"""False alarms among slices stay within what is stated, and a bad slice is found."""

import pytest

from tests.simulations.slices import alarms


@pytest.mark.slow
def test_any_slice_is_called_worse_by_chance_at_most_as_often_as_stated() -> None:
    false, _ = alarms(n_groups=200, raised=0.0, n_draws=200, seed=7)
    assert false <= 0.05 + 3 * (0.05 * 0.95 / 200) ** 0.5


def test_a_slice_with_many_more_errors_is_found() -> None:
    _, found = alarms(n_groups=200, raised=0.5, n_draws=5, seed=3)
    assert found == 1

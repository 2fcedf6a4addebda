"""The simulation of splits in short: nothing accepted is too small, and nothing moves."""

import numpy as np
import pytest

from tests.simulations import splitting
from tests.simulations.splitting import Data, balance_of, moved, refusals, split


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few sets and candidates in place of sixty each."""
    monkeypatch.setattr(splitting, "N_SETS", 6)
    monkeypatch.setattr(splitting, "N_SALTS", 8)


@pytest.mark.parametrize("n_groups", [(8, 16), (12, 100), (40, 40)])
def test_nothing_is_refused_and_nothing_accepted_lacks_groups(n_groups: tuple[int, int]) -> None:
    assert refusals(n_groups) == (0, 0)


@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.5])
def test_no_group_moves_whatever_joins_them(fraction: float) -> None:
    found = moved(fraction, n_sets=6)
    assert found.n_sets == 6
    assert (found.n_groups, found.n_test_to_train) == (0, 0)
    assert found.n_excluded > 0


def test_images_are_balanced_nearly_as_well_as_by_a_library_that_looks_at_nothing_else() -> None:
    errors = []
    for seed in range(6):
        data = Data.draw(seed, (60, 200))
        splits = split(data)
        assert splits is not None
        errors.append(balance_of(data, splits))
    error, size_of_test = np.mean(errors, axis=0)
    assert error < 0.04
    assert size_of_test == pytest.approx(1, abs=0.05)

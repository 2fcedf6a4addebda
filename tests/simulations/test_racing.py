"""Racing promotions: one winner in each round, and no update is lost."""

from components.shared.storage import StoreSettings
from tests.simulations.racing import Result, race


def test_each_round_has_one_winner_and_no_update_is_lost(s3: StoreSettings, bucket: str) -> None:
    """As `python -m tests.simulations.racing`, with fewer writers and rounds."""
    result = race(s3, bucket, n_writers=8, n_rounds=3)
    assert [len(of_round) for of_round in result.winners] == [1, 1, 1]
    assert result.n_lost == 0
    assert result.n_decisions == 24


def test_a_lost_update_is_counted() -> None:
    assert Result([["a"], ["b"]], ["a", "b"], 2, 1.0).n_lost == 0
    assert Result([["a"], ["b"]], ["b"], 2, 1.0).n_lost == 2
    assert Result([["a"], ["b"]], ["a"], 2, 1.0).n_lost == 1

"""Parts are halved where memory runs out, and doubled while that is worth it."""

import numpy as np
import pytest
import torch

from components.shared.contracts.errors import TransientError
from components.shared.training.loop import halving
from components.shared.training.loop.distributed import World
from components.shared.training.loop.halving import PartSize, Positions, head_room, in_parts

WORLD = World(0, 1, torch.device("cpu"))
ROWS = np.arange(1000, dtype=np.int64)


class _Card:
    """Stands for a GPU: memory for so many rows, and a rate that saturates.

    A part takes one second, and one for every `per_second` rows.
    """

    def __init__(self, memory: int, per_second: float, monkeypatch: pytest.MonkeyPatch) -> None:
        self.memory, self.per_second = memory, per_second
        self.sizes: list[int] = []
        self.seconds = 0.0
        monkeypatch.setattr(halving, "_now", lambda world, size: self.seconds)

    def __call__(self, rows: Positions) -> Positions:
        if len(rows) > self.memory:
            raise torch.OutOfMemoryError("planted")
        self.sizes.append(len(rows))
        self.seconds += 1 + len(rows) / self.per_second
        return rows


def test_parts_are_doubled_until_memory_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    card, size = _Card(100, 1e9, monkeypatch), PartSize(8, search=True)
    found = np.concatenate(list(in_parts(card, ROWS, size, WORLD)))
    np.testing.assert_array_equal(found, ROWS)
    assert card.sizes[:4] == [8, 16, 32, 64]
    assert size.size == 64
    assert not size.searching


def test_parts_are_doubled_until_throughput_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 8 rows a second has 4.4, of 128 it has 9.3, of 256 it has 9.6: not worth it."""
    card, size = _Card(10**9, 10, monkeypatch), PartSize(8, search=True)
    np.concatenate(list(in_parts(card, np.arange(5000), size, WORLD)))
    assert card.sizes[:6] == [8, 16, 32, 64, 128, 256]
    assert size.size == 128


def test_what_was_found_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    card, size = _Card(40, 1e9, monkeypatch), PartSize(8, search=True)
    list(in_parts(card, ROWS, size, WORLD))
    card.sizes.clear()
    list(in_parts(card, ROWS[:64], size, WORLD))
    assert card.sizes == [32, 32]


@pytest.mark.parametrize("count", [1, 31, 32, 33, 50, 64, 97])
def test_without_a_search_parts_are_those_of_an_even_split(count: int) -> None:
    size = PartSize(32)
    parts = list(in_parts(lambda rows: rows, ROWS[:count], size, WORLD))
    even = np.array_split(ROWS[:count], -(-count // 32))
    assert [part.tolist() for part in parts] == [part.tolist() for part in even]


def test_the_next_rows_are_expected_before_each_part() -> None:
    seen: list[list[int]] = []
    size = PartSize(4)
    list(
        in_parts(lambda rows: rows, ROWS[:10], size, WORLD, lambda rows: seen.append(rows.tolist()))
    )
    assert seen == [[4, 5, 6], [7, 8, 9], []]


def test_a_single_row_that_does_not_fit_is_a_transient_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card = _Card(0, 1.0, monkeypatch)
    with pytest.raises(TransientError, match="out of memory with one image"):
        list(in_parts(card, ROWS, PartSize(8), WORLD))


def test_nothing_is_held_back_on_a_cpu_and_a_twentieth_of_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert head_room(WORLD.device).numel() == 0
    monkeypatch.setattr(halving, "_total_bytes", lambda device: 1000)  # as of a GPU
    assert head_room(WORLD.device).numel() == 50

"""Images are read once, by a thread, before they are asked for; its errors are the reader's."""

import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch

from components.shared.training.loop import read_ahead
from components.shared.training.loop.read_ahead import Pixels, Positions, ReadAhead

CPU = torch.device("cpu")


class _Store:
    """Images of one pixel that holds the position; counts what is read, and by which thread."""

    def __init__(self) -> None:
        self.read_positions: list[list[int]] = []
        self.threads: set[str] = set()
        self.error: Exception | None = None
        self.go_on = threading.Event()
        self.go_on.set()

    def read(self, positions: Positions, out: Pixels) -> None:
        """Read as a data set does."""
        self.go_on.wait(10)
        self.read_positions.append(positions.tolist())
        self.threads.add(threading.current_thread().name)
        if self.error is not None:
            raise self.error
        out[:] = positions[:, None, None, None]


def _positions(*values: int) -> Positions:
    return np.array(values, dtype=np.int64)


def _values(images: torch.Tensor) -> list[int]:
    return [int(value) for value in images[:, 0, 0, 0]]


def _waited(condition: Callable[[], bool], tries: int = 500) -> bool:
    return any(condition() or threading.Event().wait(0.01) for _ in range(tries))


def test_expected_images_are_read_by_another_thread_before_they_are_asked_for() -> None:
    store = _Store()
    with ReadAhead(store.read, 2, CPU) as reader:
        reader.expect(_positions(4, 2, 9))
        assert _waited(lambda: store.read_positions == [[4, 2, 9]])
        images = reader.images(_positions(4, 2, 9))
        assert images.shape == (3, 2, 2, 3)
        assert images.dtype == torch.uint8
        assert _values(images) == [4, 2, 9]
    assert store.read_positions == [[4, 2, 9]]
    assert threading.current_thread().name not in store.threads


def test_a_part_of_what_is_held_is_not_read_again() -> None:
    """Micro-batches that were halved, or asked for twice."""
    store = _Store()
    with ReadAhead(store.read, 1, CPU) as reader:
        reader.expect(_positions(*range(8)))
        for part in (range(4), range(2), range(2, 4), range(4, 8), range(8)):
            assert _values(reader.images(_positions(*part))) == list(part)
        reader.expect(_positions(5, 6))
    assert len(store.read_positions) == 1


def test_what_was_not_expected_is_read_now_in_the_order_asked_for() -> None:
    store = _Store()
    with ReadAhead(store.read, 1, CPU) as reader:
        reader.expect(_positions(1, 2, 3))
        assert _values(reader.images(_positions(3, 1))) == [3, 1]
        assert _values(reader.images(_positions(1, 2, 3))) == [1, 2, 3]
        assert reader.images(_positions()).shape == (0, 1, 1, 3)


def test_two_buffers_are_all_that_is_held_and_the_one_in_use_stays() -> None:
    store = _Store()
    with ReadAhead(store.read, 1, CPU) as reader:
        reader.expect(_positions(0, 1))
        for start in range(0, 40, 2):
            images = reader.images(_positions(start, start + 1))
            reader.expect(_positions(start + 2, start + 3))
            assert _waited(lambda start=start: len(store.read_positions) == start // 2 + 2)
            assert _values(images) == [start, start + 1]
    assert len(store.read_positions) == 21


def test_what_is_expected_before_the_present_batch_was_read_is_not_lost() -> None:
    """The first batch of a training: its successor is expected while nothing has been read."""
    store = _Store()
    with ReadAhead(store.read, 1, CPU) as reader:
        for value in range(6):
            reader.expect(_positions(value + 1))
            assert _values(reader.images(_positions(value))) == [value]
            assert _values(reader.images(_positions(value))) == [value]
        assert _values(reader.images(_positions(6))) == [6]  # its reading may not have begun
    assert sorted(store.read_positions) == [[value] for value in range(7)]


def test_an_error_of_the_thread_is_raised_where_the_images_are_asked_for() -> None:
    store = _Store()
    with ReadAhead(store.read, 1, CPU) as reader:
        store.error = OSError(5, "Input/output error")
        reader.expect(_positions(1))
        with pytest.raises(OSError, match="Input/output error"):
            reader.images(_positions(1))
        store.error = None
        assert _values(reader.images(_positions(1))) == [1]


def test_a_reading_that_is_no_longer_wanted_disturbs_no_later_one() -> None:
    store = _Store()
    with ReadAhead(store.read, 1, CPU) as reader:
        store.go_on.clear()
        for value in range(5):
            reader.expect(_positions(value))
        store.go_on.set()
        assert _values(reader.images(_positions(4))) == [4]
        assert _values(reader.images(_positions(3))) == [3]
    assert len(store.read_positions) <= 4


def test_the_thread_ends_with_its_owner() -> None:
    with ReadAhead(_Store().read, 1, CPU) as reader:
        reader.expect(_positions(1))
        assert any(thread.name.startswith("read-ahead") for thread in threading.enumerate())
    assert not any(thread.name.startswith("read-ahead") for thread in threading.enumerate())


class _Event:
    """Stands for torch.cuda.Event: reached when the copy that was begun before it is done."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.reached.set()

    def record(self) -> None:
        """A copy to the GPU has been begun."""
        self.reached.clear()

    def synchronize(self) -> None:
        """Wait for the copy."""
        assert self.reached.wait(10)


def test_a_buffer_is_not_filled_again_before_the_gpu_has_its_copy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A copy that is still under way reads the buffer."""
    store, events = _Store(), list[_Event]()

    def new(self: ReadAhead, capacity: int) -> read_ahead._Buffer:
        events.append(_Event())
        pixels = torch.empty((capacity, 1, 1, 3), dtype=torch.uint8)
        return read_ahead._Buffer(pixels, copied=events[-1])  # type: ignore[arg-type]

    monkeypatch.setattr(ReadAhead, "_new", new)
    with ReadAhead(store.read, 1, CPU) as reader:
        reader.expect(_positions(0))
        reader.images(_positions(0))
        reader.expect(_positions(1))
        under_way = reader.images(_positions(1))
        reader.expect(_positions(2))
        # The first buffer is wanted for the third image.
        assert not _waited(lambda: len(store.read_positions) > 2, tries=20)
        for event in events:
            event.reached.set()
        assert _waited(lambda: len(store.read_positions) > 2)
        assert _values(under_way) == [1]
        assert _values(reader.images(_positions(2))) == [2]
    assert len(events) == 2

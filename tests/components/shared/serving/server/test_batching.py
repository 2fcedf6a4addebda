"""Dynamic batching: who joins a batch, how long it waits, and what happens to errors."""

import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest

from components.shared.serving.server.batching import Batcher, Pixels
from components.shared.serving.server.refusals import RefusedError

LATER = time.monotonic() + 3600


def _pixels(value: int) -> Pixels:
    return np.full((2, 2, 3), value, np.uint8)


class _Compute:
    """Returns each image's value; the first batch waits for `gate`."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.started, self.gate = threading.Event(), threading.Event()

    def __call__(self, pixels: Pixels) -> Sequence[int]:
        self.sizes.append(len(pixels))
        self.started.set()
        self.gate.wait()
        return [int(image[0, 0, 0]) for image in pixels]


@pytest.fixture
def compute() -> _Compute:
    return _Compute()


def _batcher(compute: _Compute, batch_images: int = 4, wait_seconds: float = 0.0) -> Batcher[int]:
    return Batcher(compute, batch_images=batch_images, wait_seconds=wait_seconds)


def _submit(batcher: Batcher[int], value: int, deadline: float = LATER):  # type: ignore[no-untyped-def]
    batcher.announce()
    return batcher.submit(_pixels(value), deadline)


def test_images_that_arrive_while_a_batch_is_computed_are_the_next_batches(
    compute: _Compute,
) -> None:
    batcher = _batcher(compute)
    first = _submit(batcher, 0)
    compute.started.wait()
    others = [_submit(batcher, value) for value in range(1, 7)]
    compute.gate.set()
    assert [first.result(10), *(other.result(10) for other in others)] == list(range(7))
    assert compute.sizes == [1, 4, 2]
    batcher.close()


def test_a_lone_image_does_not_wait(compute: _Compute) -> None:
    compute.gate.set()
    batcher = _batcher(compute, wait_seconds=60)
    assert _submit(batcher, 7).result(10) == 7
    batcher.close()


def test_a_batch_waits_for_announced_images_at_most_the_stated_time(compute: _Compute) -> None:
    compute.gate.set()
    batcher = _batcher(compute, wait_seconds=0.2)
    batcher.announce()  # this one does not come
    started = time.monotonic()
    assert _submit(batcher, 7).result(10) == 7
    assert time.monotonic() - started >= 0.2
    batcher.withdraw()
    batcher.close()


def test_a_batch_goes_when_the_last_announced_image_comes_or_is_withdrawn(
    compute: _Compute,
) -> None:
    compute.gate.set()
    batcher = _batcher(compute, wait_seconds=60)
    batcher.announce()
    batcher.announce()
    first = _submit(batcher, 1)
    second = batcher.submit(_pixels(2), LATER)
    batcher.withdraw()
    assert (first.result(10), second.result(10)) == (1, 2)
    assert compute.sizes == [2]
    batcher.close()


def test_an_image_whose_time_is_over_is_not_computed(compute: _Compute) -> None:
    compute.gate.set()
    batcher = _batcher(compute)
    with pytest.raises(RefusedError, match="not computed in time"):
        _submit(batcher, 1, deadline=time.monotonic()).result(10)
    assert compute.sizes == []
    batcher.close()


def test_an_error_reaches_all_of_its_batch_and_no_other() -> None:
    def compute(pixels: Pixels) -> Sequence[int]:
        if pixels[0, 0, 0, 0] == 0:
            raise RuntimeError("out of order")
        return [1] * len(pixels)

    batcher = Batcher(compute, batch_images=4, wait_seconds=0)
    batcher.announce()
    with pytest.raises(RuntimeError, match="out of order"):
        batcher.submit(_pixels(0), LATER).result(10)
    batcher.announce()
    assert batcher.submit(_pixels(1), LATER).result(10) == 1
    batcher.close()


def test_closing_answers_what_was_submitted(compute: _Compute) -> None:
    batcher = _batcher(compute)
    answers = [_submit(batcher, value) for value in range(6)]
    threading.Timer(0.05, compute.gate.set).start()
    batcher.close()
    assert [answer.result(0) for answer in answers] == list(range(6))


def test_batches_are_reported_with_their_seconds() -> None:
    reported = []
    batcher = Batcher(
        lambda pixels: [0] * len(pixels),
        batch_images=4,
        wait_seconds=0,
        on_batch=lambda n_images, seconds: reported.append((n_images, seconds >= 0)),
    )
    batcher.announce()
    batcher.submit(_pixels(1), LATER).result(10)
    batcher.close()
    assert reported == [(1, True)]

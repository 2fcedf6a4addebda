"""The sampler: every step is addressable, an epoch is a permutation."""

import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from components.shared.training.loop.sampler import global_batch, steps_per_epoch


@given(
    n=st.integers(1, 200),
    size=st.integers(1, 64),
    seed=st.integers(0, 2**31),
    epoch=st.integers(0, 5),
)
def test_an_epoch_shows_no_sample_twice(n: int, size: int, seed: int, epoch: int) -> None:
    per_epoch = steps_per_epoch(n, size)
    steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
    seen = np.concatenate([global_batch(n, size, seed, step) for step in steps])
    assert len(set(seen.tolist())) == len(seen) == per_epoch * min(n, size)
    assert seen.min() >= 0
    assert seen.max() < n


def test_steps_do_not_depend_on_the_order_they_are_asked_for() -> None:
    forward = [global_batch(50, 8, 3, step) for step in range(20)]
    backward = [global_batch(50, 8, 3, step) for step in reversed(range(20))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forward, backward, strict=True))


def test_epochs_and_seeds_differ() -> None:
    assert not np.array_equal(global_batch(50, 50, 0, 0), global_batch(50, 50, 0, 1))
    assert not np.array_equal(global_batch(50, 50, 0, 0), global_batch(50, 50, 1, 0))


def test_a_step_that_asks_for_the_order_does_not_load_torch() -> None:
    code = (
        "import sys; import components.shared.training.loop.conformal_batches;"
        " sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

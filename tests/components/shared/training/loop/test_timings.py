"""Time of a training's parts, as the loop counts it."""

import time

import torch

from components.shared.training.loop.distributed import World
from components.shared.training.loop.timings import PARTS, Timings
from components.shared.training.loop.trainer import Trainer
from tests.components.shared.training import toy


def test_time_of_a_part_is_counted_until_it_is_taken() -> None:
    timings = Timings()
    for _ in range(2):
        with timings.part("data"):
            time.sleep(0.01)
    seconds = timings.take()
    assert list(seconds) == list(PARTS)
    assert 0.02 <= seconds["data"] < 1
    assert timings.take() == dict.fromkeys(PARTS, 0.0)


def test_worlds_count_apart_and_are_equal_all_the_same() -> None:
    one, two = World(0, 1, torch.device("cpu")), World(0, 1, torch.device("cpu"))
    with one.timings.part("data"):
        pass
    assert one == two
    assert two.timings.take()["data"] == 0


def test_a_step_has_a_forward_a_backward_and_an_optimizer_part(world: World) -> None:
    Trainer(toy.Toy(world, seconds=0.01), toy.config(), world).step(0)
    seconds = world.timings.take()
    assert seconds["forward"] >= 0.02  # with the rehearsal
    assert min(seconds["backward"], seconds["optimizer"]) > 0
    assert seconds["communication"] == 0

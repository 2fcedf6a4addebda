"""The search for the micro-batch, on a toy with planted speed and memory.

It runs on GPUs only; here the toy is told to search. What a size costs is planted in the clock.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from components.shared.contracts.options import LoopConfig
from components.shared.training.loop import trainer as module
from components.shared.training.loop.distributed import World
from components.shared.training.loop.state import Position, capture, restore
from components.shared.training.loop.trainer import Trainer
from tests.components.shared.training import toy
from tests.components.shared.training.toy import Positions, Toy

Cost = Callable[[int], float]


class _Clock:
    """Seconds that passes take, in place of those that go by."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


class _Timed(Toy):
    """A pass over n samples takes `cost(n)` seconds."""

    clock: _Clock
    cost: Cost

    def loss(
        self, model: torch.nn.Module, positions: Positions, batch_slots: Positions, step: int
    ) -> torch.Tensor:
        """As of the toy."""
        self.clock.now += self.cost(len(positions))
        return super().loss(model, positions, batch_slots, step)


@dataclass(frozen=True)
class _SlowPeer(World):
    """One of two ranks; the other one's passes take as long, and those of 15 samples a minute."""

    def all_gather_int(self, code: int) -> list[int]:
        """Return this rank's code and the other's."""
        return [code, 60 * 10**9 if code > 14 * 10**8 else code]


def _trainer(
    world: World, monkeypatch: pytest.MonkeyPatch, cost: Cost, memory: int = 10**9
) -> Trainer:
    task = _Timed(world, memory=memory)
    task.clock, task.cost = _Clock(), cost  # type: ignore[method-assign]
    monkeypatch.setattr(module, "time", task.clock)
    trainer = Trainer(task, toy.config(), world)
    trainer.searching = True
    return trainer


@pytest.mark.parametrize(
    ("cost", "memory", "expected"),
    [
        (lambda n: 1.0, 100, 15),  # a pass takes as long whatever its size
        (lambda n: 1.0, 7, 4),  # of 2, 4, 8 and 15 the largest that fits
        (lambda n: 1.0, 1, 1),  # not even the smallest: halved as ever
        (lambda n: 1.0 if n <= 4 else float(n), 100, 4),  # larger ones fit and are slower
        (lambda n: 0.1 * n, 100, 15),  # of equal ones the largest
    ],
)
def test_the_fastest_size_that_fits_is_chosen(
    world: World, monkeypatch: pytest.MonkeyPatch, cost: Cost, memory: int, expected: int
) -> None:
    trainer = _trainer(world, monkeypatch, cost, memory)
    trainer.step(0)
    assert trainer.micro_batch_size == expected
    assert not trainer.searching


def test_the_search_says_what_it_found_and_changes_weights_by_rounding_only(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = Trainer(Toy(world), toy.config(), world)
    found = _trainer(world, monkeypatch, lambda n: 1.0 if n <= 4 else float(n))
    for step in range(4):
        plain.step(step)
        found.step(step)
    for one, two in zip(plain.parameters, found.parameters, strict=True):
        assert torch.allclose(one, two, atol=1e-6)
    assert (
        "micro-batch of 4 per process; samples/s by size: 2: 2, 4: 4, 8: 1, 15: 1"
        in capsys.readouterr().out
    )


def test_ranks_choose_alike_by_the_slowest(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    def cost(n: int) -> float:
        return 1.5 if n == 15 else 1.0

    assert _searched(_trainer(world, monkeypatch, cost)) == 15
    assert _searched(_trainer(_SlowPeer(0, 1, world.device), monkeypatch, cost)) == 8


def _searched(trainer: Trainer) -> int:
    batch = trainer._batch(0)
    trainer._search_micro_batch(batch, trainer._slots(batch), 0)
    return trainer.micro_batch_size


def test_a_resumed_training_keeps_the_size_that_was_found(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = _trainer(world, monkeypatch, lambda n: 1.0 if n <= 4 else float(n))
    trainer.step(0)
    position = Position(best=trainer.averaged_weights(), best_value=0.0, losses=[1.0])
    state = capture(trainer, position, world)

    again = _trainer(world, monkeypatch, lambda n: 1.0)  # on a card on which larger ones are fast
    restore(state, again, Position(best=again.averaged_weights(), best_value=0.0), world)
    again.step(1)
    assert again.micro_batch_size == 4


def test_only_gpus_search_and_only_where_rounding_may_differ(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def searches(changes: dict[str, object], *, deterministic: bool) -> bool:
        monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: deterministic)
        gpu = World(0, 1, torch.device("cuda", 0))
        # Nothing of it computes here.
        monkeypatch.setattr(Trainer, "_first_average", lambda self: [])
        return Trainer(Toy(world), toy.config(**changes), gpu).searching

    assert searches({}, deterministic=False)
    assert not searches({}, deterministic=True)
    assert not searches({"micro_batch_size": 3}, deterministic=False)
    assert not searches({"compile": "default"}, deterministic=False)
    assert not Trainer(Toy(world), toy.config(), world).searching
    assert not Trainer(Toy(world), LoopConfig(), world).searching

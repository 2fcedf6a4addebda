"""A rank gives signs of life from within a long pass."""

from pathlib import Path

import pytest
import torch
from torch import nn

from components.shared.training.launch.heartbeat import Heartbeat
from components.shared.training.loop import timings
from components.shared.training.loop.distributed import World


class _Counting(Heartbeat):
    """Counts the signs of life."""

    seen = 0

    def record(self, rank: int, step: int | None = None, *, waiting: bool = False) -> None:
        self.seen += 1


def test_a_long_pass_gives_signs_of_life_from_each_block_both_ways(tmp_path: Path) -> None:
    heartbeat = _Counting(tmp_path / "heartbeat", 1)
    blocks = nn.ModuleList(nn.Linear(3, 3, bias=False) for _ in range(4))
    blocks[0].requires_grad_(False)
    World(0, 1, torch.device("cpu"), heartbeat).record_within(nn.Sequential(blocks))

    values = torch.ones(1, 3)
    for block in blocks:
        values = block(values)
    assert heartbeat.seen == 4
    values.sum().backward()  # type: ignore[no-untyped-call]
    assert heartbeat.seen == 4 + 3


def test_a_rank_without_a_launcher_has_no_hooks() -> None:
    layer = nn.Linear(2, 2)
    World(0, 1, torch.device("cpu")).record_within(nn.ModuleList([layer]))
    assert not layer._forward_hooks


@pytest.mark.parametrize(("call", "read"), [("all_gather", "tolist"), ("gather_rows", "cpu")])
def test_the_wait_for_other_ranks_is_communication_where_their_values_are_read(
    monkeypatch: pytest.MonkeyPatch, call: str, read: str
) -> None:
    """Stands for a GPU: a collective call returns at once, its result is waited for when read."""

    class Clock:
        now = 0.0

        def perf_counter(self) -> float:
            return self.now

    clock, reading = Clock(), getattr(torch.Tensor, read)

    def wait(tensor: torch.Tensor) -> object:
        clock.now += 3.0
        return reading(tensor)

    monkeypatch.setattr(timings, "time", clock)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda _: None)
    monkeypatch.setattr(torch.Tensor, read, wait)
    world = World(0, 2, torch.device("cpu"))
    if call == "all_gather":
        assert world.all_gather([torch.tensor(1.0), torch.tensor(2.0)]) == [[1, 2], [0, 0]]
    else:
        assert torch.equal(world.gather_rows(torch.ones(1, 3), 2)[0], torch.ones(3))
    assert world.timings.take()["communication"] == 3.0

"""A rank gives signs of life from within a long pass."""

from pathlib import Path

import torch
from torch import nn

from components.shared.training.launch.heartbeat import Heartbeat
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

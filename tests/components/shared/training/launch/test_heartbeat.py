"""Signs of life tell the rank that hangs from those that wait for it."""

import time
from pathlib import Path

from components.shared.training.launch.heartbeat import Heartbeat


def test_ranks_that_wait_for_the_hung_one_are_not_blamed(tmp_path: Path) -> None:
    heartbeat = Heartbeat(tmp_path / "heartbeat", 3)
    for rank in range(3):
        heartbeat.record(rank, 4, waiting=rank != 1)
    assert heartbeat.hung(10) == ""
    time.sleep(0.02)
    assert heartbeat.hung(0.01).startswith("rank 1 hangs in step 4")
    heartbeat.record(1, waiting=True)
    time.sleep(0.02)
    assert heartbeat.hung(0.01).count("hangs") == 3

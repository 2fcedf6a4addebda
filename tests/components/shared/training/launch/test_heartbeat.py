"""Signs of life tell the rank that hangs from those that wait for it, and long work from none."""

import json
from pathlib import Path

import pytest

from components.shared.training.launch import heartbeat as signs
from components.shared.training.launch.heartbeat import Heartbeat
from components.shared.training.launch.torchrun import launch


class _Clock:
    """Stands for the module `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def monotonic_ns(self) -> int:
        return int(self.now * 1e9)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    """The clock of the signs of life."""
    replaced = _Clock()
    monkeypatch.setattr(signs, "time", replaced)
    return replaced


def test_ranks_that_wait_for_the_hung_one_are_not_blamed(tmp_path: Path, clock: _Clock) -> None:
    heartbeat = Heartbeat(tmp_path / "heartbeat", 3)
    for rank in range(3):
        heartbeat.record(rank, 4, waiting=rank != 1)
    assert heartbeat.hung(10) == ""
    clock.now += 11
    assert heartbeat.hung(10).startswith("rank 1 hangs in step 4")
    heartbeat.record(1, waiting=True)
    # Rank 1 was alive a moment ago: those that wait for it are healthy.
    assert heartbeat.hung(10) == ""
    clock.now += 1000
    assert heartbeat.hung(10).count("hangs") == 3


def test_the_limit_is_five_times_the_longest_pause_so_far(tmp_path: Path, clock: _Clock) -> None:
    heartbeat = Heartbeat(tmp_path / "heartbeat", 2)
    for step in range(3):
        clock.now += 200
        for rank in range(2):
            heartbeat.record(rank, step)
    clock.now += 999
    assert heartbeat.hung(240) == ""
    clock.now += 2
    assert heartbeat.hung(240).startswith("rank 0 hangs in step 2: no sign of life for 1001 s")


def test_the_limit_never_exceeds_half_an_hour(tmp_path: Path, clock: _Clock) -> None:
    heartbeat = Heartbeat(tmp_path / "heartbeat", 1)
    heartbeat.record(0, 0)
    clock.now += 1000
    heartbeat.record(0, 1)
    clock.now += 1801
    assert "hangs in step 1" in heartbeat.hung(240)


def test_time_spent_waiting_for_others_does_not_raise_the_limit(
    tmp_path: Path, clock: _Clock
) -> None:
    heartbeat = Heartbeat(tmp_path / "heartbeat", 1)
    heartbeat.record(0, 0, waiting=True)
    clock.now += 200
    heartbeat.record(0)
    clock.now += 241
    assert "hangs" in heartbeat.hung(240)


def test_a_step_longer_than_the_limit_is_healthy_while_its_micro_batches_go_on(
    tmp_path: Path,
) -> None:
    changes = {"epochs": 1, "global_batch_size": 40, "micro_batch_size": 8}
    job = tmp_path / "job.json"
    job.write_text(json.dumps({"changes": changes, "seconds": 1.0}), encoding="utf-8")
    launch("tests.components.shared.training.toy", job, n_processes=1, hang_seconds=3.0)
    assert (tmp_path / "weights.safetensors").is_file()

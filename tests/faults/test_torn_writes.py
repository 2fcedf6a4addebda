"""A power cut between any two calls of a writer leaves a state that is read, and costs one interval
at most.

CASES says how many cuts: 100 by default, 1,000 by `make test-faults`.
"""

import contextlib
import os
import random
import shutil
from pathlib import Path

import torch

from components.shared.contracts import artifacts
from components.shared.contracts.config import Config
from components.shared.training.checkpoint import files as checkpoint_files
from components.shared.training.checkpoint.remote import RemoteCheckpoints
from components.shared.training.loop.state import TrainingState
from tests.faults.memory_store import MemoryStore
from tests.faults.torn import PowerCutError, power_cut

CASES = 1000 if os.environ.get("KILLS") else 100
_STEPS = (10, 20, 30, 40)
_NEVER = 10**9


def _state(step: int, chance: random.Random) -> TrainingState:
    values = torch.tensor([chance.random() for _ in range(chance.randint(1, 3000))])
    return TrainingState({"weights/w": values}, {"step": step, "best_epoch": step // 20})


def _write_all(
    place: Path,
    remote: RemoteCheckpoints,
    chance: random.Random,
    written: list[int],
    stored: list[int],
) -> None:
    """What the two threads of CheckpointWriter do, one after the other."""
    for step in _STEPS:
        path = checkpoint_files.write(place, _state(step, chance), step="toy", config=Config())
        written.append(step)
        checkpoint_files.prune(place)
        remote.upload(path, keep={kept.name for kept in checkpoint_files.all_of(place)})
        stored.append(step)


def _remote(store: MemoryStore) -> RemoteCheckpoints:
    return RemoteCheckpoints(store, "s3://bucket/trainings", "key")  # type: ignore[arg-type]


def _read(path: Path | None) -> int:
    return checkpoint_files.read(path).step if path is not None else 0


def test_checkpoints_survive_a_power_cut_between_any_two_calls(tmp_path: Path) -> None:
    (tmp_path / "count").mkdir()
    with power_cut(tmp_path / "count", _NEVER, random.Random(0)) as disk:
        _write_all(tmp_path / "count", _remote(MemoryStore()), random.Random(0), [], [])
    local = (CASES + 1) // 2
    assert disk.calls > 40
    for case in range(local):
        place = tmp_path / "place"
        place.mkdir()
        written: list[int] = []
        chance = random.Random(case)
        with power_cut(place, case % disk.calls + 1, chance):
            _write_all(place, _remote(MemoryStore()), chance, written, [])
        assert _read(checkpoint_files.newest(place)) >= max(written, default=0)
        # The next attempt writes over whatever was left.
        path = checkpoint_files.write(place, _state(50, chance), step="toy", config=Config())
        checkpoint_files.prune(place)
        assert checkpoint_files.newest(place) == path
        shutil.rmtree(place)


def test_stored_checkpoints_survive_a_kill_between_any_two_calls(tmp_path: Path) -> None:
    counter = MemoryStore()
    (tmp_path / "count").mkdir()
    _write_all(tmp_path / "count", _remote(counter), random.Random(0), [], [])
    n_calls = _NEVER - counter.calls_left
    assert n_calls > 20
    for case in range(CASES // 2):
        store, place, other = MemoryStore(), tmp_path / "place", tmp_path / "other"
        place.mkdir()
        other.mkdir()
        stored: list[int] = []
        store.calls_left = case % n_calls
        with contextlib.suppress(PowerCutError):
            _write_all(place, _remote(store), random.Random(case), [], stored)
        store.calls_left = _NEVER
        remote = _remote(store)
        remote.claim()
        found = remote.fetch(other, newer_than=0)
        assert _read(found) >= max(stored, default=0)
        remote.discard()
        assert not store.objects
        shutil.rmtree(place)
        shutil.rmtree(other)


def test_artifacts_are_old_or_new_or_not_there_but_never_half(tmp_path: Path) -> None:
    def write(path: Path, content: str) -> None:
        with artifacts.writing(path, kind="Thing", step="test", config=Config()) as out:
            (out / "deep").mkdir()
            for name in ("a", "deep/b"):
                (out / name).write_text(content * 2000)

    path = tmp_path / "run/thing"
    path.parent.mkdir()
    write(path, "old")
    with power_cut(path.parent, _NEVER, random.Random(0)) as disk:
        write(path, "new")
    n_cases = CASES // 5
    seen = set()
    for case in range(n_cases):
        write(path, "old")
        with power_cut(path.parent, case % disk.calls + 1, random.Random(case)):
            write(path, "new")
        if path.exists():
            artifacts.verify_dir(path, "Thing")
            seen.add((path / "a").read_text()[:3])
        write(path, "new")
        artifacts.verify_dir(path, "Thing")
        assert [entry.name for entry in path.parent.iterdir()] == ["thing"]
    assert seen == {"old", "new"}

"""Trials follow from the seed and the finished trials: resumed, ended early, or broken."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch

from components.shared.contracts.errors import PermanentError, TransientError
from components.shared.contracts.options import LaunchConfig
from components.shared.training.checkpoint.writer import CheckpointWriter
from components.shared.training.classifier.config import ClassifierConfig
from components.shared.training.loop.distributed import World
from components.shared.training.search.config import SearchConfig
from components.shared.training.search.space import space_of
from components.shared.training.search.study import importances
from components.shared.training.search.trials import Trained, Watch, read_trials, run_trials
from tests.studies.heads import alone

WORLD = World(0, 1, torch.device("cpu"))
BASE = ClassifierConfig(monitor="val_select/auroc")
CONFIG = SearchConfig(n_trials=16, training={"monitor": "val_select/auroc"})


def _quality(config: ClassifierConfig) -> float:
    """A smooth optimum at a tenfold rate and little dropout, in the place of a training."""
    return 1 - (np.log10(config.learning_rate) + 2) ** 2 / 4 - config.dropout / 4


class FakeTrainer:
    """Trains nothing: three epochs that approach the quality; breaks where it is told to."""

    def __init__(self, *, stops_at: str = "", fails: bool = False, watched: bool = True) -> None:
        self.stops_at, self.fails, self.watched = stops_at, fails, watched
        self.names: list[str] = []

    def __call__(self, config: ClassifierConfig, name: str, watch: Watch) -> Trained:
        """Return the quality as the value."""
        self.names.append(name)
        if name == self.stops_at:
            raise TransientError("the machine is gone")
        if self.fails and config.learning_rate > 5e-3:
            raise PermanentError("the loss of step 3 is nan")

        value = _quality(config)
        history: list[dict[str, float]] = []
        for epoch in (1, 2, 3) if self.watched else ():
            history.append({"epoch": float(epoch), config.monitor: value - 1 / epoch})
            watch(history)
        return Trained(3, value, np.full((4, 2), value, dtype=np.float32))


def _searched(folder: Path, trainer: FakeTrainer, config: SearchConfig = CONFIG) -> Path:
    checkpoints = CheckpointWriter(folder / "checkpoints", LaunchConfig(), step="test")
    work = folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    checkpoints.directory.mkdir(exist_ok=True)
    with alone():
        run_trials(config, BASE, trainer, WORLD, checkpoints, work)
    return work


def test_an_interrupted_search_has_the_trials_of_one_that_was_not(tmp_path: Path) -> None:
    whole = _searched(tmp_path / "whole", FakeTrainer())

    for name in ("trial-00003", "trial-00011"):
        with pytest.raises(TransientError, match="the machine is gone"):
            _searched(tmp_path / "broken", FakeTrainer(stops_at=name))
    last = FakeTrainer()
    resumed = _searched(tmp_path / "broken", last)

    assert last.names[0] == "trial-00011"
    for name in ("trials.json", "logits.npy"):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes()


def test_a_lock_that_a_killed_process_left_is_no_obstacle(tmp_path: Path) -> None:
    with pytest.raises(TransientError):
        _searched(tmp_path, FakeTrainer(stops_at="trial-00002"))
    journal = tmp_path / "checkpoints/journal-0.log"
    journal.with_name("journal-0.log.lock").symlink_to(journal)
    with journal.open("ab") as stream:
        stream.write(b'{"op_code":')  # a line that the kill cut off

    assert len(read_trials(_searched(tmp_path, FakeTrainer()))[0]) == 16


def test_the_journal_is_json_that_optuna_opens(tmp_path: Path) -> None:
    _searched(tmp_path, FakeTrainer())
    journal = tmp_path / "checkpoints/journal-0.log"
    assert all(json.loads(line) for line in journal.read_text().splitlines())
    backend = optuna.storages.journal.JournalFileBackend(str(journal))
    study = optuna.load_study(study_name="search", storage=optuna.storages.JournalStorage(backend))
    assert len(study.trials) == 16


def test_the_search_finds_what_random_values_do_not(tmp_path: Path) -> None:
    trials, logits = read_trials(_searched(tmp_path, FakeTrainer(watched=False)))
    values = [trial.value or 0.0 for trial in trials]
    assert [trial.state for trial in trials] == ["complete"] * 16
    assert values[0] == pytest.approx(_quality(BASE))
    assert max(values[10:]) > max(values[:10])
    assert logits[:, 0, 0].tolist() == pytest.approx(values)

    found = importances(values, [trial.options for trial in trials], space_of(BASE), 0)
    assert next(iter(found)) == "learning_rate"
    assert importances([1.0, 1.0], [{}, {}], space_of(BASE), 0) == {}


def test_trainings_below_the_median_are_ended(tmp_path: Path) -> None:
    trials, logits = read_trials(_searched(tmp_path, FakeTrainer()))
    states = [trial.state for trial in trials]
    assert states[:4] == ["complete"] * 4  # before a median says something
    assert 3 <= states.count("pruned") <= 12
    assert len(logits) == states.count("complete")
    pruned = [trial for trial in trials if trial.state == "pruned"]
    assert {(trial.value, trial.best_epoch) for trial in pruned} == {(None, None)}


def test_a_trial_that_fails_is_recorded_and_the_first_one_ends_the_search(tmp_path: Path) -> None:
    trials, _ = read_trials(_searched(tmp_path / "some", FakeTrainer(fails=True)))
    failed = [trial for trial in trials if trial.state == "failed"]
    assert failed
    assert {trial.reason for trial in failed} == {"the loss of step 3 is nan"}

    class Broken(FakeTrainer):
        def __call__(self, *_: Any) -> Trained:
            raise PermanentError("the loss of step 3 is nan")

    with pytest.raises(PermanentError):
        _searched(tmp_path / "first", Broken())


def test_another_seed_has_other_trials(tmp_path: Path) -> None:
    other = dataclasses.replace(CONFIG, seed=1)
    found = [
        read_trials(_searched(tmp_path / name, FakeTrainer(), config))[0]
        for name, config in (("a", CONFIG), ("b", other))
    ]
    assert found[0][0] == found[1][0]
    assert found[0][1].options != found[1][1].options

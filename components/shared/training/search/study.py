"""The study of Optuna behind a search, whose proposals depend on seed and finished trials alone.

Its storage is Optuna's journal, a file of JSON lines beside the checkpoints. The bytes that one
trial appends are kept with the trial, so that a search that was killed begins with the journal of
the finished trials: half a trial leaves nothing, and the same trials follow.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from components.shared.contracts.random_streams import SearchStream
from components.shared.training.classifier.config import ClassifierConfig
from components.shared.training.search.space import Space

_NAME = "search"
# Complete trainings before one is ended that is below their median: a median of less says little.
_COMPLETE_BEFORE_PRUNING = 4


class Study:
    """Proposes the options of one trial after the other; larger values are better."""

    def __init__(
        self,
        file: Path,
        finished: Sequence[bytes],
        base: ClassifierConfig,
        space: Space,
        seed: int,
    ) -> None:
        """Begin, or go on after the `finished` trials.

        Args:
            file: The journal, which is written anew.
            finished: What each finished trial has appended to the journal.
            base: The options of the first trial.
            space: The options that are searched, with their values.
            seed: Seed of the proposals.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        for leftover in file.parent.glob(f"{file.name}*"):  # the lock of a process that was killed
            leftover.unlink()
        file.write_bytes(b"".join(finished))

        self._file, self._space, self._seed = file, space, seed
        self._size = file.stat().st_size
        self._study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(file))),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=_COMPLETE_BEFORE_PRUNING),
            study_name=_NAME,
            direction="maximize",
            load_if_exists=True,
        )
        if not finished:
            self._study.enqueue_trial({name: getattr(base, name) for name in space})

    def ask(self, number: int) -> optuna.Trial:
        """Return the trial `number` with the values that it proposes (`params`)."""
        sequence = np.random.SeedSequence((self._seed, number, SearchStream.SAMPLER))
        # A sampler of its own for each trial: nothing but the finished trials decides the next.
        self._study.sampler = optuna.samplers.TPESampler(seed=int(sequence.generate_state(1)[0]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return self._study.ask(self._space)

    def tell(self, trial: optuna.Trial, value: float | None, state: str) -> bytes:
        """Record how a trial ended; return what it has appended to the journal.

        `state`: "complete", with the value; "pruned" or "failed", without.
        """
        ended = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
        self._study.tell(trial, value, state=ended.get(state, TrialState.FAIL))

        with self._file.open("rb") as stream:
            stream.seek(self._size)
            appended = stream.read()
        self._size += len(appended)
        return appended


def importances(
    values: Sequence[float], params: Sequence[dict[str, Any]], space: Space, seed: int
) -> dict[str, float]:
    """Return how much of the variance of the values each option explains, largest first.

    Functional analysis of variance on a random forest (Hutter, Hoos, Leyton-Brown, ICML 2014).
    Empty where fewer than two different values exist.

    Args:
        values: Value of each complete trial.
        params: Values of the searched options of each complete trial.
        space: The search space.
        seed: Seed of the forest.
    """
    if not space or len(set(values)) < 2:
        return {}

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    for value, given in zip(values, params, strict=True):
        study.add_trial(
            optuna.trial.create_trial(params=given, distributions=dict(space), value=value)
        )
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(part) for name, part in found.items()}

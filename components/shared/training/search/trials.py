"""The trials of a search, one after the other on all ranks, each kept as soon as it has ended.

Every rank holds the study and asks it the same questions: trials follow from the seed and from
metrics that all ranks share, so that nothing has to be sent. An interruption loses the trial under
way; where trainings have checkpoints, only what follows the last one.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import optuna

from components.shared.contracts.adaptations import monitored
from components.shared.contracts.artifacts import write_json
from components.shared.contracts.documents import read_object
from components.shared.contracts.errors import PermanentError, one_line
from components.shared.contracts.listing import say
from components.shared.contracts.progress import progress
from components.shared.data.arrays import load_array
from components.shared.training.checkpoint.writer import CheckpointWriter
from components.shared.training.classifier.config import ClassifierConfig
from components.shared.training.loop.distributed import World
from components.shared.training.search.config import SearchConfig
from components.shared.training.search.space import space_of, with_values
from components.shared.training.search.study import Study

_JOURNAL, _TRIAL, _LOGITS = "journal.log", "trial.json", "VAL_SELECT.npy"
History = list[dict[str, float]]
Watch = Callable[[History], None]


@dataclass(frozen=True)
class Trial:
    """One trial.

    Attributes:
        number: From 0, the options of the run.
        state: "complete", "pruned" (ended below the median of others), or "failed".
        options: The values of the searched options.
        value: The monitored metric at the best epoch; None unless complete.
        best_epoch: From 1; None unless complete.
        reason: Why it failed.
    """

    number: int
    state: str
    options: dict[str, Any]
    value: float | None = None
    best_epoch: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class Trained:
    """A trained classifier: its best epoch, from 1, and its logits (N, C) float32 on VAL_SELECT."""

    best_epoch: int
    value: float
    logits: npt.NDArray[np.float32]


class Trainer(Protocol):
    """Trains the classifier of one trial."""

    def __call__(self, config: ClassifierConfig, name: str, watch: Watch) -> Trained:
        """Train with these options.

        Args:
            config: The options.
            name: Name of the trial, for its checkpoints.
            watch: Takes the rows of all epochs after each, and ends the training by an error where
                it is below the median of others.

        Raises:
            PermanentError: The options cannot be trained with.
        """


def run_trials(
    config: SearchConfig,
    base: ClassifierConfig,
    train: Trainer,
    world: World,
    checkpoints: CheckpointWriter,
    work: Path,
) -> None:
    """Run the trials that no earlier attempt has finished; the main rank writes them to `work`.

    `trials.json` has all of them, `logits.npy` the logits (T, N, C) float32 of the complete ones.

    Args:
        config: Options of the search.
        base: The options of the first trial, as this device resolves them.
        train: Trains one classifier.
        world: The ranks.
        checkpoints: Where finished trials, and the training under way, are kept.
        work: Folder of the results.

    Raises:
        PermanentError: The first trial, with the options of the run, fails.
    """
    parts, space = checkpoints.parts, space_of(base)
    done = 0
    while done < config.n_trials and parts.has(_name(done)):
        done += 1
    world.all_gather_int(done)  # no rank ends a trial before all have counted

    finished = [(parts.path(_name(number)) / _JOURNAL).read_bytes() for number in range(done)]
    journal = checkpoints.directory / f"journal-{world.rank}.log"
    study = Study(journal, finished, base, space, config.seed)
    if done and world.is_main:
        say(f"{done} of {config.n_trials} trials are finished; the search goes on")

    for number in progress(range(done, config.n_trials), "trials", quiet=not world.is_main):
        world.record_progress()
        asked = study.ask(number)
        trial, logits = _ended(number, asked, base, train)
        appended = study.tell(asked, trial.value, trial.state)
        if world.is_main:
            with parts.writing(_name(number)) as out:
                write_json(out / _TRIAL, asdict(trial))
                (out / _JOURNAL).write_bytes(appended)
                if logits is not None:
                    np.save(out / _LOGITS, logits, allow_pickle=False)
            checkpoints.discard(_name(number))

    parts.settle()
    if world.is_main:
        _collect(config, checkpoints, work)


def _ended(
    number: int, asked: optuna.Trial, base: ClassifierConfig, train: Trainer
) -> tuple[Trial, npt.NDArray[np.float32] | None]:
    """Train with the options of a trial; return how that ended, with the logits where it did."""
    options = dict(asked.params)
    told = 0

    def watch(history: History) -> None:
        nonlocal told
        for row in history[told:]:
            asked.report(monitored(base.monitor, row[base.monitor]), int(row["epoch"]))
        told = len(history)
        if asked.should_prune():
            raise optuna.TrialPruned

    try:
        trained = train(with_values(base, options), _name(number), watch)
    except optuna.TrialPruned:
        return Trial(number, "pruned", options), None
    except PermanentError as error:
        if number == 0:
            raise
        say(f"trial {number} failed: {one_line(error)}")
        return Trial(number, "failed", options, reason=one_line(error)), None

    value = float(trained.value)
    return Trial(number, "complete", options, value, trained.best_epoch), trained.logits


def read_trials(work: Path) -> tuple[list[Trial], npt.NDArray[np.float32]]:
    """Return the trials that `run_trials` left, and the logits (T, N, C) of the complete ones."""
    trials = read_object(work / "trials.json", dict[str, list[Trial]])["trials"]
    return trials, load_array(work / "logits.npy", np.float32, (None, None, None), mapped=True)


def _collect(config: SearchConfig, checkpoints: CheckpointWriter, work: Path) -> None:
    folders = [checkpoints.parts.path(_name(number)) for number in range(config.n_trials)]
    trials = [read_object(folder / _TRIAL, Trial) for folder in folders]
    write_json(work / "trials.json", {"trials": [asdict(trial) for trial in trials]})

    logits = [
        load_array(folder / _LOGITS, np.float32, (None, None))
        for folder, trial in zip(folders, trials, strict=True)
        if trial.state == "complete"
    ]
    np.save(work / "logits.npy", np.stack(logits), allow_pickle=False)


def _name(number: int) -> str:
    return f"trial-{number:05d}"

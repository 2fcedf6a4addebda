"""Checkpoints on disk: complete directories, found and pruned by their step.

`step-000000120/` holds `state.safetensors` and `state.json` under the manifest of every other
artifact: staged, synced, renamed, verified before it is read. The names sort by step: no clock is
asked, so one that goes backwards is harmless.
"""

import re
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import read_manifest, verify_dir, write_json, writing
from components.shared.contracts.config import Config
from components.shared.contracts.documents import read_object
from components.shared.contracts.errors import ArtifactError
from components.shared.contracts.listing import say, shown

# Steps import this module to find checkpoints; torch is for the processes that train.
if TYPE_CHECKING:
    from components.shared.training.loop.state import TrainingState

_NAME = re.compile(r"step-[0-9]{9,18}")
_TENSORS, _DOCUMENT = "state.safetensors", "state.json"


def write(directory: Path, state: "TrainingState", *, step: str, config: Config) -> Path:
    """Write a checkpoint of the phase `step` below `directory`; returns its directory."""
    from safetensors.torch import save_file

    path = directory / f"step-{state.step:09d}"
    best = {"step": state.step, "best_epoch": state.document["best_epoch"]}
    with writing(path, kind=Kind.TRAINING_STATE, step=step, config=config, summary=best) as out:
        save_file(state.tensors, out / _TENSORS)
        write_json(out / _DOCUMENT, state.document)
    return path


def read(path: Path) -> "TrainingState":
    """Read a checkpoint that `newest` has verified.

    Raises ArtifactError where its content is none; `restore` checks whether it fits the training.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from components.shared.training.loop.state import TrainingState

    document = read_object(path / _DOCUMENT, dict[str, Any])
    for name in ("step", "best_epoch"):
        if type(document.get(name)) is not int or document[name] < 0:
            raise ArtifactError(
                f"{path / _DOCUMENT}: {name}={shown(document.get(name))} must be an integer >= 0"
            )

    try:
        return TrainingState(load_file(path / _TENSORS), document)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path / _TENSORS}: cannot be read ({shown(str(error))})") from error


def all_of(directory: Path) -> list[Path]:
    """Return every checkpoint directory below `directory`, oldest first, verified or not."""
    found = (path for path in directory.glob("step-*") if is_name(path.name))
    return sorted(path for path in found if path.is_dir())


def is_name(name: str) -> bool:
    """Return whether a directory's name is that of a checkpoint."""
    return _NAME.fullmatch(name) is not None


def step_of(name: str) -> int:
    """Return the finished steps of the checkpoint with this directory name."""
    return int(name.removeprefix("step-"))


def newest(directory: Path) -> Path | None:
    """Return the newest complete checkpoint; damaged ones are named and skipped."""
    for path in reversed(all_of(directory)):
        try:
            verify_dir(path, Kind.TRAINING_STATE)
        except ArtifactError as error:
            say(f"warning: damaged checkpoint skipped: {error}")
        else:
            return path
    return None


def remove_partial(directory: Path) -> None:
    """Remove checkpoints that killed attempts left half written."""
    for path in directory.glob(".step-*"):
        shutil.rmtree(path, ignore_errors=True)


def prune(directory: Path, keep: Collection[str] = ()) -> None:
    """Remove all checkpoints but the newest, the best so far and the names in `keep`.

    The best is the first one with the best weights so far.
    """
    best_epochs: dict[int, str] = {}
    paths = all_of(directory)
    for path in paths:
        try:
            best_epoch = read_manifest(path).summary.get("best_epoch")
        except ArtifactError:
            continue
        if type(best_epoch) is int:
            best_epochs.setdefault(best_epoch, path.name)

    best = best_epochs[max(best_epochs)] if best_epochs else ""
    for path in paths[:-1]:
        if path.name not in (best, *keep):
            shutil.rmtree(path, ignore_errors=True)

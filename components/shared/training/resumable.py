"""Where are the checkpoints of a training with these inputs, and did it fail for good before?

Both are found by a key made from the inputs, not from the run or the pod: a retry, or a new run with the same inputs,
goes on there; any changed input, configuration or line of code has another key.
"""

import hashlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Any

from components.shared import errors
from components.shared.artifacts import MANIFEST, code_version, read_manifest, sha256_file, write_json
from components.shared.config import canonical_json
from components.shared.errors import PermanentError, one_line
from components.shared.training import checkpoint_files
from components.shared.training.config import CheckpointConfig

# Directory that holds the checkpoints of all trainings; unset: `.checkpoints` beside the step's first output.
PLACE_VARIABLE = "STREETVISION_CHECKPOINTS"
_FAILURE = "failed.json"


class ResumableTraining:
    """A training phase's protection, from its step: `with training:` around launch and writing of the outputs.

    On success the checkpoints are removed; a permanent error is recorded and raised again by `check_history` of the
    next attempt; after anything else they stay for it.
    """

    def __init__(self, config: CheckpointConfig, *, step: str, inputs: Mapping[str, Path | str], beside: Path) -> None:
        """`inputs`: everything that decides the result besides the configuration and the code: artifacts, other
        folders, or text. `beside`: the step's first output."""
        self.key = training_key(config, step, inputs)
        root = os.environ.get(PLACE_VARIABLE)
        self.place = (Path(root) if root else beside.parent / ".checkpoints").absolute() / self.key
        self.job: dict[str, Any] = {}
        self._step = step

    def check_history(self) -> None:
        """Raise the permanent error of an earlier attempt with the same inputs, within milliseconds."""
        file = self.place / _FAILURE
        if file.is_file():
            record = json.loads(file.read_text(encoding="utf-8"))
            kind = getattr(errors, record["class"], PermanentError)
            raise kind(
                f"{record['message']} (as before with the same inputs; to try again nevertheless, delete {file})"
            )

    def __enter__(self) -> dict[str, Any]:
        """The entry "checkpoints" of job.json, for `Checkpoints.of_job`."""
        self.place.mkdir(parents=True, exist_ok=True)
        found = checkpoint_files.newest(self.place)
        return {"place": str(self.place), "step": self._step, "found": str(found) if found else ""}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the checkpoints, or record why another attempt would fail too."""
        if isinstance(error, PermanentError):
            write_json(self.place / _FAILURE, {"class": type(error).__name__, "message": one_line(error)})
        elif error is None:
            shutil.rmtree(self.place, ignore_errors=True)
            if not any(self.place.parent.iterdir()):
                self.place.parent.rmdir()


def training_key(config: CheckpointConfig, step: str, inputs: Mapping[str, Path | str]) -> str:
    """32 hex characters over step, inputs, configuration, code and torch version.

    Not in it: what does not change the trained function: when checkpoints are written, the number of processes.
    """
    apart = {field.name for field in fields(CheckpointConfig)} | {"n_processes"}
    values = {name: value for name, value in config.to_json().items() if name not in apart}
    digests = {name: _digest(value) for name, value in inputs.items()}
    versions = [code_version(), importlib.metadata.version("torch")]
    return hashlib.sha256(canonical_json([step, digests, values, versions]).encode()).hexdigest()[:32]


def _digest(value: Path | str) -> str:
    """Of an artifact from its manifest alone, which the step verifies later; of another folder from its bytes."""
    if isinstance(value, str):
        return value
    if (value / MANIFEST).is_file():
        return read_manifest(value).content_digest
    files = sorted(file for file in value.rglob("*") if file.is_file())
    listing = [[file.relative_to(value).as_posix(), sha256_file(file)] for file in files]
    return hashlib.sha256(canonical_json(listing).encode()).hexdigest()

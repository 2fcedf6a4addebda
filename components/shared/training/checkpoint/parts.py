"""Finished parts of a long computation, which the next attempt does not compute again.

`parts/<name>/` beside the checkpoints is an artifact of its own: staged, synced, renamed, and
uploaded to the store, where there is one, while the next part is computed. A part is a function of
what the key of the checkpoints covers and of its name, so that every process may write some.
"""

import contextlib
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import MANIFEST, verify_dir, writing
from components.shared.contracts.errors import (
    ArtifactError,
    NotDurableError,
    OvertakenError,
    StreetVisionError,
    one_line,
)
from components.shared.contracts.listing import say
from components.shared.contracts.options import ResumableConfig
from components.shared.training.checkpoint.remote import RemoteCheckpoints

FOLDER = "parts"


class Parts:
    """The parts of one computation, as one of its processes sees them."""

    def __init__(
        self,
        directory: Path,
        config: ResumableConfig,
        *,
        step: str,
        remote: RemoteCheckpoints | None = None,
    ) -> None:
        """Name the parts of the phase `step`; `directory` is that of its checkpoints."""
        self._folder, self._config, self._step = directory / FOLDER, config, step
        self._remote = remote
        self._uploads = ThreadPoolExecutor(1, thread_name_prefix="parts")
        self._upload: Future[None] | None = None

    @classmethod
    def of_job(cls, job: dict[str, Any], config: ResumableConfig) -> Self:
        """Build from the "checkpoints" entry of job.json, which TrainingSession writes."""
        remote = RemoteCheckpoints.of_job(job["remote"]) if job["remote"] else None
        return cls(Path(job["directory"]), config, step=job["step"], remote=remote)

    def path(self, name: str) -> Path:
        """Return the directory of a part."""
        return self._folder / name

    def has(self, name: str) -> bool:
        """Return whether a part is finished, by whichever process or attempt."""
        return (self.path(name) / MANIFEST).is_file()

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Yield a staging directory that becomes the part on success.

        Raises:
            NotDurableError: the part before it could not be stored, and `require_durable` is set.
            OvertakenError: another attempt has taken this computation over.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self.path(name)
        with writing(path, kind=Kind.TRAINING_STATE, step=self._step, config=self._config) as out:
            yield out

        self.settle()
        if self._remote is not None:
            self._upload = self._uploads.submit(self._remote.upload_part, path)

    def settle(self) -> None:
        """Wait until what was written is stored; raises as `writing`."""
        if self._upload is None:
            return

        upload, self._upload = self._upload, None
        try:
            upload.result()
        except OvertakenError:
            raise
        except (StreetVisionError, OSError) as error:
            failure = f"a finished part cannot be stored: {one_line(error)}"
            if self._config.require_durable:
                raise NotDurableError(f"{failure}; require_durable=true stops here") from error
            say(f"warning: {failure}; the step goes on unprotected")


def remove_damaged(directory: Path) -> None:
    """Remove the parts below the directory of the checkpoints that differ from their manifest."""
    for path in sorted((directory / FOLDER).glob("[!.]*")):
        try:
            verify_dir(path, Kind.TRAINING_STATE)
        except ArtifactError as error:
            say(f"warning: damaged part removed: {error}")
            shutil.rmtree(path, ignore_errors=True)

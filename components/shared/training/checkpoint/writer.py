"""Writing of checkpoints by a thread while training goes on.

Every `checkpoint_steps` steps or `checkpoint_seconds` seconds, whichever comes first, by a thread:
training only waits for a copy in memory. A second thread uploads them to the store. A checkpoint
that cannot be written or stored is a warning, or the end where `require_durable` is set.
"""

import shutil
import threading
import time
from pathlib import Path
from typing import Any, Self

from components.shared.contracts.errors import NotDurableError, OvertakenError, one_line
from components.shared.contracts.listing import say
from components.shared.contracts.options import LaunchConfig
from components.shared.storage.errors import StoreConflictError, StoreUnavailableError
from components.shared.training.checkpoint import files as checkpoint_files
from components.shared.training.checkpoint.parts import Parts
from components.shared.training.checkpoint.remote import RemoteCheckpoints
from components.shared.training.checkpoint.uploads import CheckpointUploader
from components.shared.training.loop.state import TrainingState


class CheckpointWriter:
    """The checkpoints of one training, as a rank sees them. Only the main rank writes."""

    def __init__(
        self,
        directory: Path,
        config: LaunchConfig,
        *,
        step: str,
        found: Path | None = None,
        remote: RemoteCheckpoints | None = None,
        micro_batch_limit: int = 0,
    ) -> None:
        """Open the checkpoints of one training.

        `directory`: of this training alone; `found`: the verified checkpoint to resume from;
        `micro_batch_limit`: most samples at a time after an attempt that ran out of memory, 0: no
        limit.
        """
        self.micro_batch_limit = micro_batch_limit
        self.directory, self._remote = directory, remote
        self._config, self._step, self._found = config, step, found
        self._writer: threading.Thread | None = None
        self._failure = ""
        self._uploads = CheckpointUploader(remote) if remote is not None else None
        self.parts = Parts(directory, config, step=step, remote=remote)
        self._last_step, self._last_time = 0, time.monotonic()

    @classmethod
    def of_job(cls, job: dict[str, Any], config: LaunchConfig) -> Self:
        """Build from the "checkpoints" entry of job.json.

        TrainingSession and `run_module` write it.
        """
        remote = RemoteCheckpoints.of_job(job["remote"]) if job["remote"] else None
        found = Path(job["found"]) if job["found"] else None
        return cls(
            Path(job["directory"]),
            config,
            step=job["step"],
            found=found,
            remote=remote,
            micro_batch_limit=job["micro_batch_limit"],
        )

    def fetch(self, name: str) -> None:
        """Take the training `name` of several over from other attempts; the main rank's alone.

        What an earlier attempt has stored of it lies beside what it has left here.
        """
        checkpoint_files.remove_partial(self.directory / name)
        if self._remote is None:
            return

        remote = self._remote.within(name)
        try:
            remote.claim()
            found = checkpoint_files.newest(self.directory / name)
            step = checkpoint_files.step_of(found.name) if found else 0
            remote.fetch(self.directory / name, newer_than=step)
        except (StoreUnavailableError, StoreConflictError) as error:
            if self._config.require_durable:
                raise
            say(f"warning: the store does not protect {name}: {one_line(error)}")

    def within(self, name: str) -> Self:
        """Return the checkpoints of the training `name` of several, which `fetch` has found."""
        return type(self)(
            self.directory / name,
            self._config,
            step=self._step,
            found=checkpoint_files.newest(self.directory / name),
            remote=self._remote.within(name) if self._remote is not None else None,
            micro_batch_limit=self.micro_batch_limit,
        )

    def discard(self, name: str) -> None:
        """Remove the checkpoints of the training `name`, which has ended; the main rank's alone."""
        shutil.rmtree(self.directory / name, ignore_errors=True)
        if self._remote is not None:
            try:
                self._remote.within(name).discard()
            except (StoreUnavailableError, StoreConflictError) as error:
                say(f"warning: the store keeps checkpoints of {name}: {one_line(error)}")

    def found(self) -> TrainingState | None:
        """What to go on from."""
        if self._found is None:
            return None
        state = checkpoint_files.read(self._found)
        self._last_step = state.step
        return state

    def due(self, step: int) -> bool:
        """Return whether to save after `step` finished steps.

        It is false while the last checkpoint is still being written. Raises NotDurableError where
        an earlier one failed and `require_durable` is set, OvertakenError where another attempt has
        taken this training over.
        """
        if self._writer is not None and self._writer.is_alive():
            return False

        self._report()
        every = self._config.checkpoint_steps
        waited = time.monotonic() - self._last_time

        return (
            bool(every and step - self._last_step >= every)
            or waited >= self._config.checkpoint_seconds
        )

    def save(self, state: TrainingState) -> None:
        """Start writing; the state is a copy that training no longer touches."""
        self._last_step, self._last_time = state.step, time.monotonic()
        self._writer = threading.Thread(
            target=self._write, args=(state,), name="checkpoint", daemon=True
        )
        self._writer.start()

    def close(self) -> None:
        """Wait until the last checkpoint is written, and upload no more.

        Errors as in `due`.
        """
        if self._writer is not None:
            self._writer.join()
            self._report()
        if self._uploads is not None:
            self._uploads.stop()

    def _write(self, state: TrainingState) -> None:
        try:
            path = checkpoint_files.write(
                self.directory, state, step=self._step, config=self._config
            )
            if self._uploads is not None:
                self._uploads.offer(path)
            checkpoint_files.prune(
                self.directory, self._uploads.held() if self._uploads is not None else ()
            )
        except Exception as error:
            self._failure = (
                f"checkpoint of step {state.step} cannot be written to {self.directory}:"
                f" {one_line(error)}"
            )

    def _report(self) -> None:
        failures = [self._failure]
        self._failure = ""
        if self._uploads is not None:
            if self._uploads.overtaken:
                raise OvertakenError(self._uploads.overtaken)

            failures.append(self._uploads.failure)
            self._uploads.failure = ""

        failure = "; ".join(filter(None, failures))
        if failure and self._config.require_durable:
            raise NotDurableError(f"{failure}; require_durable=true stops training here")
        if failure:
            say(f"warning: {failure}; training goes on unprotected")

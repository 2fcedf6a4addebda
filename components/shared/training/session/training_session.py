"""Trainings that resume where an earlier attempt stopped, or repeat its permanent error.

Checkpoints and errors are found by a key made from the inputs, not from the run or the pod: a
retry, or a new run with the same inputs, goes on there; any changed input, configuration or line of
code has another key.
"""

import contextlib
import fcntl
import importlib.metadata
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from components.shared.contracts.artifacts import (
    MANIFEST,
    Manifest,
    code_version,
    read_manifest,
    sha256_file,
    working,
    write_json,
)
from components.shared.contracts.config import digest
from components.shared.contracts.disk import full_disk
from components.shared.contracts.documents import as_type, parse_json, read_bytes
from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import (
    ArtifactError,
    ConfigError,
    PermanentError,
    TransientError,
    error_class,
    one_line,
)
from components.shared.contracts.listing import say
from components.shared.contracts.options import KERNEL_OPTIONS, ResumableConfig, StepsLaunchConfig
from components.shared.storage import Store
from components.shared.storage.errors import StoreConflictError, StoreUnavailableError
from components.shared.training.checkpoint import files as checkpoint_files
from components.shared.training.checkpoint import parts
from components.shared.training.checkpoint.remote import RemoteCheckpoints
from components.shared.training.session.nodes import Nodes
from components.shared.training.session.restarts import run_module

_FAILURE, _MICRO_BATCH = "failed.json", "micro-batch.json"


class TrainingSession:
    """Checkpoints, restarts and recorded failure of one training, as its step sees them.

    `with training.run(module)` surrounds the writing of outputs. On success the checkpoints are
    removed; a permanent error is recorded and raised again by `raise_recorded_failure` of the next
    attempt; after anything else they stay for it.
    """

    def __init__(
        self, config: ResumableConfig, *, step: str, inputs: Mapping[str, Path | str], beside: Path
    ) -> None:
        """Find the directory and the store of the training.

        `inputs`: everything that decides the result besides the configuration and the code:
        artifacts, other folders, or text. `beside`: the step's first output.
        """
        self.key = training_key(config, step, inputs)
        root = os.environ.get(Variable.CHECKPOINTS)
        self.directory = (
            Path(root) if root else beside.parent / ".checkpoints"
        ).absolute() / self.key
        self._step, self._config, self._inputs, self._beside = step, config, dict(inputs), beside
        self._nodes = Nodes.of_step(self.key)
        self._remote = self._connect()
        self._lock: TextIO | None = None

    def raise_recorded_failure(self) -> None:
        """Raise the permanent error of an earlier attempt with the same inputs.

        Called before anything is loaded.
        """
        file = self.directory / _FAILURE
        if os.path.lexists(file):
            _raise_recorded(str(file), lambda: read_bytes(file))

        if self._remote is not None:
            record = None
            with self._tolerating("cannot be asked"):
                record = self._remote.failure()
            if record is not None:
                _raise_recorded(f"{self._remote.location}/{_FAILURE}", lambda: record)

    def __enter__(self) -> Self:
        """Lock the directory of the checkpoints, which is made.

        Raises TransientError where the same training runs on this machine already, ConfigError for
        a directory that cannot be made.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock = self._locked()
        except OSError as error:
            if full_disk(error):
                raise
            raise ConfigError(
                f"{self.directory}: {error.strerror}; set {Variable.CHECKPOINTS} to a folder that"
                " can be written"
            ) from error
        return self

    def find_checkpoint(self) -> dict[str, Any]:
        """Return the entry "checkpoints" of job.json, for `CheckpointWriter.of_job`.

        It is called before every start of the processes. The first call takes the training over
        from other attempts, a later one raises OvertakenError where that happened to this one.
        """
        checkpoint_files.remove_partial(self.directory)
        parts.remove_damaged(self.directory)

        # Several nodes have only what is in the store.
        found = checkpoint_files.newest(self.directory) if self._nodes is None else None
        if self._remote is not None:
            with self._tolerating("does not protect this training yet"):
                self._remote.claim()
                step = checkpoint_files.step_of(found.name) if found else 0
                found = self._remote.fetch(self.directory, newer_than=step) or found
                self._remote.fetch_parts(self.directory / parts.FOLDER)

        job = self._remote.job if self._remote is not None else None

        return {
            "directory": str(self.directory),
            "step": self._step,
            "found": str(found or ""),
            "remote": job,
            "micro_batch_limit": self._micro_batch_limit(),
        }

    def remember_micro_batch(self, limit: int) -> None:
        """Let later attempts, also in other pods, begin with micro-batches of at most `limit`.

        With larger ones, a process ran out of memory.
        """
        record = {"micro_batch_limit": limit}
        with contextlib.suppress(OSError):  # a full disk must not hide the error
            write_json(self.directory / _MICRO_BATCH, record)
        with self._tolerating("does not know the micro-batch that fits"):
            if self._remote is not None:
                self._remote.record_micro_batch(record)

    def _micro_batch_limit(self) -> int:
        """Return what was remembered, here or in the store; 0: nothing."""
        file = self.directory / _MICRO_BATCH
        records = [(str(file), read_bytes(file))] if file.is_file() else []
        if self._remote is not None:
            with self._tolerating("cannot be asked for the micro-batch that fits"):
                where = f"{self._remote.location}/{_MICRO_BATCH}"
                found = self._remote.micro_batch()
                records += [(where, found)] if found is not None else []

        limits = []
        for where, data in records:
            try:
                record = as_type(parse_json(data, where), dict[str, int], where)
                limits.append(max(1, record["micro_batch_limit"]))
            except (ArtifactError, KeyError) as error:
                say(f"warning: {where} names no micro-batch ({one_line(error)}); ignored")

        return min(limits, default=0)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the checkpoints, or record why another attempt would fail too."""
        if isinstance(error, PermanentError):
            record = {"class": type(error).__name__, "message": one_line(error)}
            with contextlib.suppress(OSError):  # a full disk must not hide the error
                write_json(self.directory / _FAILURE, record)
            with self._tolerating("has no record of this failure"):
                if self._remote is not None:
                    self._remote.record_failure(record)
        elif error is None:
            with self._tolerating("keeps checkpoints that are no longer needed"):
                if self._nodes is not None:
                    self._nodes.discard()
                if self._remote is not None:
                    self._remote.discard()

            shutil.rmtree(self.directory, ignore_errors=True)
            with contextlib.suppress(OSError):  # other trainings' checkpoints are there
                self.directory.parent.rmdir()

        if self._lock is not None:
            self._lock.close()

    @contextlib.contextmanager
    def run(self, module: str, verified: Mapping[str, Manifest] | None = None) -> Iterator[Path]:
        """Run `module` under torchrun, protected by checkpoints.

        Yields the directory with the main rank's files, which is `work` to it, while the step's
        outputs are written. `verified`: manifests of the inputs that the step has verified, by
        name.
        """
        with self, working(self._beside) as work:
            run_module(
                module,
                self._config,
                self._inputs,
                work,
                self.find_checkpoint,
                verified,
                self.remember_micro_batch,
                self._nodes,
            )
            yield work

    def _connect(self) -> RemoteCheckpoints | None:
        uri = os.environ.get(Variable.CHECKPOINT_STORE)
        if uri:
            return RemoteCheckpoints(Store.from_environment(), uri, self.key)
        if self._config.require_durable:
            raise ConfigError(
                f"require_durable=true needs a store: set {Variable.CHECKPOINT_STORE}=s3://bucket/prefix"
            )
        return None

    def _locked(self) -> TextIO:
        """A lock that ends with this process, however that ends."""
        stream = (self.directory / "lock").open("w", encoding="utf-8")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.close()
            raise TransientError(
                f"another process trains this already, in {self.directory}; wait until it ends"
            ) from None
        except OSError as error:
            stream.close()
            raise ConfigError(
                f"{self.directory}: this file system has no locks ({error.strerror}); set"
                f" {Variable.CHECKPOINTS} to a folder on a local disk"
            ) from None

        return stream

    @contextlib.contextmanager
    def _tolerating(self, consequence: str) -> Iterator[None]:
        """Warn of a store that is unreachable, or raise where `require_durable` is set."""
        try:
            yield
        except (StoreUnavailableError, StoreConflictError) as error:
            if self._config.require_durable:
                raise
            say(f"warning: the store {consequence}: {one_line(error)}")


def _raise_recorded(where: str, read: Callable[[], bytes]) -> None:
    """Raise the permanent error in a record; a record of anything else is a warning.

    It only saves a repetition, so that a damaged one must not stop a training.
    """
    try:
        record = as_type(parse_json(read(), where), dict[str, str], where)
        name, message = record["class"], record["message"]
    except (ArtifactError, KeyError) as error:
        say(f"warning: {where} records no failure ({one_line(error)}); ignored")
        return

    found = error_class(name)
    kind = found if found is not None and issubclass(found, PermanentError) else PermanentError
    raise kind(f"{message} (as before with the same inputs; to try it again, delete {where})")


def training_key(config: ResumableConfig, step: str, inputs: Mapping[str, Path | str]) -> str:
    """Return 32 hex characters over step, inputs, configuration, code and torch version.

    Left out is everything that does not change the trained function but for the rounding of sums:
    checkpoint intervals, processes, restarts, and the kernels that compute.
    """
    apart = {field.name for field in fields(StepsLaunchConfig)} | KERNEL_OPTIONS
    values = {name: value for name, value in config.to_json().items() if name not in apart}
    digests = {name: _digest(value) for name, value in inputs.items()}
    versions = [code_version(), importlib.metadata.version("torch")]
    return digest([step, digests, values, versions])[:32]


def _digest(value: Path | str) -> str:
    """Return the digest of an artifact, another folder or a text.

    Of an artifact it is taken from the manifest alone, which the step verifies later.
    """
    if isinstance(value, str):
        return value
    if (value / MANIFEST).is_file():
        return read_manifest(value).content_digest
    files = sorted(file for file in value.rglob("*") if file.is_file())
    listing = [[file.relative_to(value).as_posix(), sha256_file(file)] for file in files]
    return digest(listing)

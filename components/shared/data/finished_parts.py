"""Finished parts of long work: what an attempt that is started again does not do again.

Each part is an artifact of its own, in a folder that is named after the inputs, and in the store
where `STREETVISION_CHECKPOINT_STORE` names one: an attempt that is killed loses the part that it
was at. Once the output is written, all of them are removed.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Self

from components.shared.contracts.artifacts import verify_dir, working, writing
from components.shared.contracts.config import Config
from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import (
    ArtifactError,
    PermanentError,
    StreetVisionError,
    one_line,
)
from components.shared.contracts.listing import say

if TYPE_CHECKING:
    from components.shared.storage import Store


@dataclass(frozen=True)
class Work:
    """What is done in parts.

    Attributes:
        name: Of the folder in the store, such as "ingest".
        kind: Of the artifact that a part is.
        step: The phase.
        config: Its configuration.
    """

    name: str
    kind: str
    step: str
    config: Config


class FinishedParts:
    """Finished parts below a folder and, where there is one, in the store."""

    def __init__(self, path: Path, work: Work, remote: "_RemoteParts | None" = None) -> None:
        """Take what is there; the folder exists."""
        self._path, self._work, self._remote = path, work, remote
        self._upload: Thread | None = None  # one, beside the work on the next part

    def find(self, name: str, check: Callable[[Path], object]) -> Path | None:
        """Return a part that an earlier attempt finished, verified; None where there is none.

        `check` reads the part, and raises ArtifactError where it is damaged.
        """
        path = self._path / name
        if not path.exists() and self._remote is not None:
            self._remote.fetch(path)
        if not path.exists():
            return None

        try:
            verify_dir(path, self._work.kind)
            check(path)
        except ArtifactError as error:
            say(f"warning: a damaged part is made again: {one_line(error)}")
            shutil.rmtree(path)
            return None
        return path

    def add(self, name: str, write: Callable[[Path], object]) -> Path:
        """Write a part into a folder, and send it to the store while the next one is made."""
        path, work = self._path / name, self._work
        with writing(path, kind=work.kind, step=work.step, config=work.config) as out:
            write(out)

        self.settle()
        if self._remote is not None:
            self._upload = Thread(target=self._remote.put, args=[path])
            self._upload.start()
        return path

    def settle(self) -> None:
        """Wait for the upload under way."""
        if self._upload is not None:
            self._upload.join()
            self._upload = None

    def discard(self) -> None:
        """Remove all parts, here and in the store."""
        self.settle()
        if self._remote is not None:
            self._remote.discard()
        shutil.rmtree(self._path, ignore_errors=True)
        with contextlib.suppress(OSError):  # what others keep is there
            self._path.parent.rmdir()


@contextlib.contextmanager
def resumable(work: Work, key: str | None, output: Path) -> Iterator[FinishedParts]:
    """Yield the parts that earlier attempts with the same inputs have finished.

    They are removed at the end, and after a permanent error; after anything else they stay for the
    next attempt.

    Args:
        work: What is done.
        key: Digest of everything that the parts depend on. Without one, and where another process
            on this machine does the same, the parts are in a working folder of this attempt.
        output: What the parts are for.
    """
    if key is None:
        with working(output) as apart:
            yield FinishedParts(apart, work)
        return

    root = os.environ.get(Variable.CHECKPOINTS)
    directory = (Path(root) if root else output.parent / ".checkpoints").absolute() / key
    with _locked(directory) as alone:
        if not alone:
            say(f"{directory} is in use or cannot be locked; this attempt keeps its parts apart")
            with working(output) as apart:
                yield FinishedParts(apart, work)
            return

        parts = FinishedParts(directory, work, _RemoteParts.of_environment(work, key))
        try:
            yield parts
        except PermanentError:
            parts.discard()
            raise
        finally:
            parts.settle()
        parts.discard()


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[bool]:
    """Make and lock the folder; yield False where another process has it, or none can lock it."""
    with contextlib.ExitStack() as stack:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            stream = stack.enter_context((directory / "lock").open("w", encoding="utf-8"))
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = True
        except OSError:
            locked = False
        yield locked


class _RemoteParts:
    """The parts of one work in the store, which it can do without: errors are warnings.

    Two pods with the same inputs write the same bytes.
    """

    def __init__(self, store: "Store", uri: str, work: Work, key: str) -> None:
        from components.shared.storage import split_uri

        self._store, self._work = store, work
        self._bucket, prefix = split_uri(uri)
        self._prefix = "/".join([*filter(None, [prefix.strip("/")]), work.name, key])
        self._lost = False

    @classmethod
    def of_environment(cls, work: Work, key: str) -> Self | None:
        """Return the parts below STREETVISION_CHECKPOINT_STORE; None where it is not set."""
        uri = os.environ.get(Variable.CHECKPOINT_STORE)
        if not uri:
            return None
        from components.shared.storage import Store

        return cls(Store.from_environment(), uri, work, key)

    def fetch(self, path: Path) -> None:
        """Download a part to `path`, if the store has it."""
        from components.shared.storage.artifacts import download_artifact
        from components.shared.storage.errors import ObjectNotFoundError

        def fetch() -> None:
            prefix = f"{self._prefix}/{path.name}"
            with contextlib.suppress(ObjectNotFoundError):
                download_artifact(self._store, self._bucket, prefix, path, kind=self._work.kind)

        self._try(fetch, "has no part for this attempt")

    def put(self, path: Path) -> None:
        """Upload a part."""
        from components.shared.storage.artifacts import upload_artifact

        def put() -> None:
            prefix = f"{self._prefix}/{path.name}"
            upload_artifact(self._store, path, self._bucket, prefix, kind=self._work.kind)

        self._try(put, f"does not protect this {self._work.name}")

    def discard(self) -> None:
        """Remove all parts; manifests go first, without which a part does not exist."""

        def discard() -> None:
            keys = [item.key for item in self._store.list(self._bucket, f"{self._prefix}/")]
            for key in sorted(keys, key=lambda key: not key.endswith("/manifest.json")):
                self._store.delete(self._bucket, key)

        self._try(discard, "keeps parts that are no longer needed")

    def _try(self, call: Callable[[], None], consequence: str) -> None:
        """Call, and after the first error, which is a warning, never again."""
        if self._lost:
            return
        try:
            call()
        except StreetVisionError as error:
            self._lost = True
            say(f"warning: the store {consequence}: {one_line(error)}")

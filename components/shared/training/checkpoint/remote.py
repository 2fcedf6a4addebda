"""Checkpoints in the object store: how they outlive their machine, and which of two pods may go on.

Below `s3://bucket/prefix/<key>/` each checkpoint is an artifact of its own, its manifest uploaded
last. `latest` names the newest and its owner. It is moved by conditional writes only: an attempt
that starts takes it over, and an older one that is still alive finds that out at its next
checkpoint and stops. Finished parts of a computation are artifacts below `parts/`.
"""

import json
import socket
import uuid
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.documents import as_type, parse_json
from components.shared.contracts.errors import ArtifactError, OvertakenError, one_line
from components.shared.contracts.listing import say
from components.shared.storage import Store, split_uri
from components.shared.storage.artifacts import download_artifact, upload_artifact
from components.shared.storage.client import MOST_DOCUMENT_BYTES
from components.shared.storage.errors import (
    DigestMismatchError,
    ObjectNotFoundError,
    StoreConflictError,
)
from components.shared.training.checkpoint import files as checkpoint_files

_POINTER, _FAILURE, _MANIFEST = "latest", "failed.json", "/manifest.json"
_MICRO_BATCH = "micro-batch.json"
_PARTS = "parts/"
_CLAIM_ATTEMPTS = 5


@dataclass(frozen=True)
class _Pointer:
    """The document of `latest`."""

    owner: str
    checkpoint: str


class RemoteCheckpoints:
    """One training's checkpoints in the store. Every method raises the store's errors."""

    def __init__(
        self, store: Store, uri: str, key: str, owner: str = "", claimed: bool = False
    ) -> None:
        """Name a training in the store; nothing is asked of the store yet.

        `uri`: s3://bucket/prefix of all trainings; `owner`: this attempt, a new one where it is
        empty.
        """
        bucket, prefix = split_uri(uri)
        self.location = f"{uri.rstrip('/')}/{key}"
        self.owner = owner or f"{socket.gethostname()[:40]}-{uuid.uuid4().hex[:12]}"
        self._uri, self._key, self._claimed = uri, key, claimed
        self._store, self._bucket = store, bucket
        self._prefix = f"{prefix.rstrip('/')}/{key}/" if prefix.rstrip("/") else f"{key}/"
        self._etag: str | None = None

    @property
    def job(self) -> dict[str, Any]:
        """What another process needs for `of_job`."""
        return {"uri": self._uri, "key": self._key, "owner": self.owner, "claimed": self._claimed}

    def within(self, name: str) -> Self:
        """Return the checkpoints of the training `name` of several, of the same attempt."""
        return type(self)(self._store, self._uri, f"{self._key}/{name}", self.owner)

    @classmethod
    def of_job(cls, job: dict[str, Any]) -> Self:
        """The same attempt, in one of its processes."""
        return cls(Store.from_environment(), **job)

    def claim(self) -> None:
        """Become the owner of the training, or confirm that this attempt still is.

        The first call takes over from any owner. Raises StoreConflictError where others claim all
        the time, OvertakenError where another attempt is the owner.
        """
        if self._claimed:
            self._join()
        else:
            self._take_over()

    def _take_over(self) -> None:
        for attempt in range(1, _CLAIM_ATTEMPTS + 1):
            pointer, etag = self._pointer()
            try:
                self._move(pointer.get("checkpoint", ""), etag)
                self._claimed = True
                return
            except StoreConflictError:
                if attempt == _CLAIM_ATTEMPTS:
                    raise

    def fetch(self, directory: Path, *, newer_than: int) -> Path | None:
        """Download the newest complete checkpoint to `directory` and return its path.

        Returns None where none is newer than the step `newer_than`. A torn or damaged one is named
        in a warning and skipped.
        """
        keys = {
            item.key.removeprefix(self._prefix)
            for item in self._store.list(self._bucket, self._prefix)
        }

        # Newest first.
        found = {key.split("/")[0] for key in keys}
        names = sorted(
            (name for name in found if checkpoint_files.is_name(_local_name(name))), reverse=True
        )

        for name in names:
            local = _local_name(name)
            if checkpoint_files.step_of(local) <= newer_than:
                return None

            try:
                if name + _MANIFEST not in keys:
                    raise ArtifactError("no manifest: its upload was interrupted")
                download_artifact(
                    self._store,
                    self._bucket,
                    self._prefix + name,
                    directory / local,
                    kind=Kind.TRAINING_STATE,
                )
            except (ArtifactError, DigestMismatchError, ObjectNotFoundError) as error:
                say(
                    f"warning: damaged checkpoint skipped: {self.location}/{name}:"
                    f" {one_line(error)}"
                )
            else:
                return directory / local

        return None

    def upload(self, path: Path, *, keep: Collection[str] = ()) -> None:
        """Store a checkpoint, move the pointer to it, and remove older ones.

        Those named in `keep` stay. Raises OvertakenError where another attempt owns the pointer.
        """
        if self._etag is None:
            self._join()
        # The owner is part of the name: two attempts never write the same object.
        name = f"{path.name}.{self.owner}"
        upload_artifact(
            self._store, path, self._bucket, self._prefix + name, kind=Kind.TRAINING_STATE
        )

        try:
            self._move(name, self._etag)
        except StoreConflictError:
            self._join()
            raise

        self._prune({path.name, *keep})

    def fetch_parts(self, directory: Path) -> None:
        """Download the finished parts that `directory` lacks; damaged ones are skipped."""
        prefix = self._prefix + _PARTS
        keys = {item.key.removeprefix(prefix) for item in self._store.list(self._bucket, prefix)}

        for name in sorted({key.split("/")[0] for key in keys if key.endswith(_MANIFEST)}):
            target = directory / _local_name(name)
            if target.exists():
                continue

            try:
                download_artifact(
                    self._store, self._bucket, prefix + name, target, kind=Kind.TRAINING_STATE
                )
            except (ArtifactError, DigestMismatchError, ObjectNotFoundError) as error:
                say(f"warning: damaged part skipped: {self.location}/{name}: {one_line(error)}")

    def upload_part(self, path: Path) -> None:
        """Store a finished part.

        Raises OvertakenError where another attempt owns the pointer.
        """
        self._join()
        # The owner is part of the name: two attempts never write the same object.
        prefix = f"{self._prefix}{_PARTS}{path.name}.{self.owner}"
        upload_artifact(self._store, path, self._bucket, prefix, kind=Kind.TRAINING_STATE)

    def failure(self) -> bytes | None:
        """The record of a permanent failure, if an earlier attempt left one."""
        return self._read(_FAILURE)[0]

    def record_failure(self, record: dict[str, Any]) -> None:
        """Leave the record for later attempts."""
        self._store.put_if_absent(self._bucket, self._prefix + _FAILURE, _document(record))

    def micro_batch(self) -> bytes | None:
        """The record of the micro-batch that fits, if an earlier attempt ran out of memory."""
        return self._read(_MICRO_BATCH)[0]

    def record_micro_batch(self, record: dict[str, Any]) -> None:
        """Leave the record for later attempts, in place of an earlier one."""
        _, etag = self._read(_MICRO_BATCH)
        key = self._prefix + _MICRO_BATCH
        self._store.compare_and_swap(self._bucket, key, _document(record), etag)

    def _read(self, name: str) -> tuple[bytes | None, str | None]:
        """Return a document and its ETag; None for both where it is not there."""
        try:
            return self._store.read_with_etag(
                self._bucket, self._prefix + name, most_bytes=MOST_DOCUMENT_BYTES
            )
        except ObjectNotFoundError:
            return None, None

    def discard(self) -> None:
        """Remove everything of this training, unless another attempt owns it."""
        pointer, _ = self._pointer()
        if pointer.get("owner", self.owner) == self.owner:
            self._prune(set())
            for item in self._store.list(self._bucket, self._prefix + _PARTS):
                self._store.delete(self._bucket, item.key)
            for name in (_MICRO_BATCH, _POINTER):
                self._store.delete(self._bucket, self._prefix + name)

    def _join(self) -> None:
        """Find the pointer of this attempt, or take it over where that was not done before.

        It was not done at the start, or the store was unreachable.
        """
        pointer, etag = self._pointer()
        if not pointer or not self._claimed:
            self._take_over()
        elif pointer["owner"] != self.owner:
            raise OvertakenError(
                f"{self.location}: {pointer['owner']}"
                " has taken this training over; this attempt stops"
            )
        else:
            self._etag = etag

    def _pointer(self) -> tuple[dict[str, Any], str | None]:
        data, etag = self._read(_POINTER)
        if data is None:
            return {}, None
        where = f"{self.location}/{_POINTER}"
        try:
            return asdict(as_type(parse_json(data, where), _Pointer, where)), etag
        except ArtifactError as error:
            # As if there were none: whoever moves it next does so under its ETag.
            say(f"warning: no pointer to checkpoints: {one_line(error)}")
            return {}, etag

    def _move(self, checkpoint: str, etag: str | None) -> None:
        document = _document({"owner": self.owner, "checkpoint": checkpoint})
        self._etag = self._store.compare_and_swap(
            self._bucket, self._prefix + _POINTER, document, etag
        )

    def _prune(self, keep: set[str]) -> None:
        """Delete all checkpoints but these.

        Manifests go first: a half deleted checkpoint does not exist for readers.
        """
        keys = [item.key for item in self._store.list(self._bucket, f"{self._prefix}step-")]
        for key in sorted(keys, key=lambda key: not key.endswith(_MANIFEST)):
            if _local_name(key.removeprefix(self._prefix)) not in keep:
                self._store.delete(self._bucket, key)


def _local_name(name: str) -> str:
    """ "step-000000012" of "step-000000012.owner/file"."""
    return name.partition(".")[0]


def _document(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, sort_keys=True) + "\n").encode()

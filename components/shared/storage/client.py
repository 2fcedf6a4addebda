"""Client of an S3 object store: listing, reading and writing objects, checked."""

import contextlib
import hashlib
import io
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from minio import Minio
from minio.error import InvalidResponseError, MinioException, S3Error

from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import (
    ConfigError,
    PermanentError,
    StreetVisionError,
    TransientError,
)
from components.shared.storage import conditional
from components.shared.storage.errors import (
    DigestMismatchError,
    ObjectNotFoundError,
    StoreConflictError,
    StoreRefusedError,
    StoreUnavailableError,
)
from components.shared.storage.retry import DEADLINE_SECONDS, RetryingPool
from components.shared.storage.settings import StoreSettings

# One request carries at most this much, so that it ends well before the deadline at 0.5 MB/s.
PART_BYTES = 8 * 1024 * 1024
_MOST_PARTS = 10_000  # limit of S3
_MULTIPART_ATTEMPTS = 3
_NOT_FOUND = frozenset({"NoSuchKey", "NoSuchObject"})
_FIXES = {
    "NoSuchBucket": "create it or correct the name",
    "InvalidAccessKeyId": f"check {Variable.S3_ACCESS_KEY}",
    "SignatureDoesNotMatch": f"check {Variable.S3_SECRET_KEY} and {Variable.S3_REGION}",
    "AccessDenied": "give these credentials the permission",
    "RequestTimeTooSkewed": "set this machine's clock",
}
_TRANSIENT = frozenset(
    {"InternalError", "OperationAborted", "RequestTimeout", "ServiceUnavailable", "SlowDown"}
)


@dataclass(frozen=True, order=True)
class StoredObject:
    """One line of a listing. size in bytes; etag as the store gave it, without quotes."""

    key: str
    size: int
    etag: str


class Store:
    """An S3 store.

    Every method retries up to the deadline and raises an error of `storage.errors` that names
    endpoint, bucket and key and never a credential.
    """

    def __init__(
        self, settings: StoreSettings, *, deadline_seconds: float = DEADLINE_SECONDS
    ) -> None:
        self.endpoint = settings.endpoint
        self._pool = RetryingPool(ca_file=settings.ca_file, deadline_seconds=deadline_seconds)
        self._client = Minio(
            settings.endpoint,
            access_key=settings.access_key,
            secret_key=settings.secret_key,
            session_token=settings.session_token,
            region=settings.region,
            secure=settings.secure,
            http_client=self._pool,
        )

    def __repr__(self) -> str:
        return f"Store({self.endpoint})"

    @classmethod
    def from_environment(cls) -> "Store":
        """The store that StoreSettings.from_environment describes; raises ConfigError."""
        return cls(StoreSettings.from_environment())

    def list(self, bucket: str, prefix: str = "") -> list[StoredObject]:
        """Return all objects whose key starts with `prefix`, sorted by key.

        Folder markers (keys ending in "/") are left out.
        """
        with self._operation("list", bucket, prefix):
            found = self._client.list_objects(bucket, prefix=prefix, recursive=True)
            return sorted(
                StoredObject(o.object_name, o.size, o.etag.strip('"'))
                for o in found
                if not o.object_name.endswith("/")
            )

    def first(self, bucket: str, prefix: str = "") -> StoredObject | None:
        """Return an object whose key starts with `prefix`, or None, by one page of the listing."""
        with self._operation("list", bucket, prefix):
            found = self._client.list_objects(bucket, prefix=prefix, recursive=True)
            objects = (StoredObject(o.object_name, o.size, o.etag.strip('"')) for o in found)
            return next((item for item in objects if not item.key.endswith("/")), None)

    def read(self, bucket: str, key: str) -> bytes:
        """Return the object's bytes, all from one version of it."""
        return self.read_with_etag(bucket, key)[0]

    def read_with_etag(self, bucket: str, key: str) -> tuple[bytes, str]:
        """Return the object's bytes and the ETag to pass to `compare_and_swap`."""
        buffer = io.BytesIO()
        etag = self._read_into(buffer, bucket, key)
        return buffer.getvalue(), etag

    def get(self, bucket: str, key: str, path: Path) -> None:
        """Download an object to `path`, all bytes from one version of it."""
        with path.open("wb") as stream:
            self._read_into(stream, bucket, key)

    def get_verified(self, bucket: str, key: str, path: Path, sha256: str) -> None:
        """Download an object to `path`, which appears only if its SHA-256 is `sha256`.

        Raises DigestMismatchError.
        """
        partial = path.with_name(f".{path.name}.partial")
        try:
            with partial.open("wb") as stream:
                self._read_into(stream, bucket, key)
                stream.flush()
                os.fsync(stream.fileno())

            with partial.open("rb") as stream:
                actual = hashlib.file_digest(stream, "sha256").hexdigest()

            if actual != sha256:
                where = self._where(bucket, key)
                raise DigestMismatchError(
                    f"{where}: sha256 is {actual[:12]}..., expected {sha256[:12]}..."
                )

            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def put(
        self,
        bucket: str,
        key: str,
        path: Path,
        *,
        metadata: Mapping[str, str] | None = None,
        on_read: Callable[[int], None] | None = None,
    ) -> str:
        """Upload a file, in parts where it is larger than PART_BYTES, and replace any object.

        Args:
            bucket: Name of the bucket.
            key: Key of the object.
            path: The file.
            metadata: Stored with the object.
            on_read: Called with the number of bytes whenever some were read from the file. An
                exception that it raises ends the upload and removes its parts: afterwards there is
                a whole object or none.

        Returns:
            The object's ETag.
        """
        size = path.stat().st_size
        with self._operation("put", bucket, key):
            for attempt in range(1, _MULTIPART_ATTEMPTS + 1):
                with path.open("rb") as stream:
                    try:
                        # One part at a time: the deadline is kept per thread.
                        written = self._client.put_object(
                            bucket,
                            key,
                            _Observed(stream, on_read or _ignore),
                            size,
                            metadata=dict(metadata or {}),
                            part_size=part_bytes(size),
                            num_parallel_uploads=1,
                        )
                        return str(written.etag).strip('"')
                    except S3Error as error:
                        # The answer to a completed upload was lost, so that the repeated request
                        # finds no upload.
                        if error.code != "NoSuchUpload" or attempt == _MULTIPART_ATTEMPTS:
                            raise

        raise AssertionError("every attempt returns or raises")

    def metadata(self, bucket: str, key: str) -> dict[str, str]:
        """Return the metadata passed to `put`, names in lower case. Raises ObjectNotFoundError."""
        with self._operation("look at", bucket, key):
            headers = self._client.stat_object(bucket, key).metadata
        prefix = "x-amz-meta-"
        return {
            name.lower().removeprefix(prefix): value
            for name, value in headers.items()
            if prefix in name.lower()
        }

    def put_if_absent(self, bucket: str, key: str, data: bytes) -> bool:
        """Create an object; returns False where it exists with other bytes.

        Of several writers at once, one gets True. After a lost answer the bytes tell whether the
        object is this writer's own: writers that must know who won write different bytes.
        """
        with self._operation("create", bucket, key):
            return self._write_if(bucket, key, data, None) is not None

    def compare_and_swap(self, bucket: str, key: str, data: bytes, etag: str | None) -> str:
        """Replace the version with this ETag (None: create) and return the new ETag.

        Raises StoreConflictError where the object has another version.
        """
        with self._operation("swap", bucket, key):
            new = self._write_if(bucket, key, data, etag)
        if new is None:
            wanted = "absent" if etag is None else f"at ETag {etag}"
            raise StoreConflictError(
                f"{self._where(bucket, key)} is no longer {wanted}: another writer was first"
            )
        return new

    def require_conditional_writes(self, bucket: str, prefix: str = "") -> None:
        """Raise StoreUnsuitableError where conditions are ignored; probes with a small object."""
        conditional.probe(self, bucket, prefix)

    def make_bucket(self, bucket: str) -> None:
        """Create a bucket; one that exists already is no error."""
        with self._operation("make", bucket, ""):
            if not self._client.bucket_exists(bucket):
                self._client.make_bucket(bucket)

    def delete(self, bucket: str, key: str) -> None:
        """Remove an object; one that is not there is no error."""
        with self._operation("delete", bucket, key):
            self._client.remove_object(bucket, key)

    def _write_if(self, bucket: str, key: str, data: bytes, etag: str | None) -> str | None:
        """Write where the object has this ETag (None: is absent); None where it has another."""
        return conditional.write(
            self._client,
            self._pool,
            bucket,
            key,
            data,
            etag=etag,
            read=lambda: self.read_with_etag(bucket, key),
        )

    def _read_into(self, stream: Any, bucket: str, key: str) -> str:
        """Append the object's bytes to a stream, range by range; returns its ETag."""
        with self._operation("read", bucket, key):
            offset, total, etag = 0, 1, ""
            while offset < total:
                # If-Match: all ranges come from the same version.
                headers = {"If-Match": f'"{etag}"'} if etag else None
                try:
                    answer = self._client.get_object(
                        bucket, key, offset, PART_BYTES, request_headers=headers
                    )
                except S3Error as error:
                    if (
                        error.code == "InvalidRange" and offset == 0
                    ):  # an empty object has no first byte
                        return str(self._client.stat_object(bucket, key).etag)
                    raise

                data = answer.read()
                if answer.status == 200 and offset:
                    raise StoreRefusedError(
                        "ignores the Range header; objects over 8 MiB cannot be read"
                    )

                stream.write(data)
                etag = answer.headers["ETag"].strip('"')
                offset += len(data)
                total = (
                    int(answer.headers["Content-Range"].rpartition("/")[2])
                    if answer.status == 206
                    else offset
                )

            return etag

    def _where(self, bucket: str, key: str) -> str:
        return f"{self.endpoint} bucket {bucket!r} key {key!r}"

    @contextlib.contextmanager
    def _operation(self, verb: str, bucket: str, key: str) -> Iterator[None]:
        """Start the deadline and turn every failure into a typed error that names the object."""
        where = f"cannot {verb} {self._where(bucket, key)}"
        try:
            with self._pool.operation():
                yield
        except S3Error as error:
            raise _typed(error, where) from None
        except InvalidResponseError as error:
            raise StoreRefusedError(
                f"{where}: the answer is not S3's ({_brief(error)}); check the endpoint"
            ) from None
        except (MinioException, ValueError) as error:
            raise StoreRefusedError(f"{where}: {_brief(error)}") from None
        except (StoreUnavailableError, StoreRefusedError) as error:
            raise type(error)(f"{where}: {error}") from None


def part_bytes(size: int) -> int:
    """Return the size of the parts in which `Store.put` sends a file of `size` bytes.

    The ETag of the object depends on it.
    """
    return max(PART_BYTES, -(-size // _MOST_PARTS))


class _Observed:
    """A binary stream whose reads are counted."""

    def __init__(self, stream: BinaryIO, on_read: Callable[[int], None]) -> None:
        self._stream, self._on_read = stream, on_read

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._on_read(len(data))
        return data


def _ignore(n_bytes: int) -> None:
    del n_bytes


def split_uri(uri: str) -> tuple[str, str]:
    """Split s3://bucket/key/or/prefix into bucket and key. Raises ConfigError."""
    scheme, separator, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not separator or not bucket:
        raise ConfigError(f"{uri!r} is not of the form s3://bucket/prefix")
    return bucket, key


def _typed(error: S3Error, where: str) -> StreetVisionError:
    fix = f"; {_FIXES[error.code]}" if error.code in _FIXES else ""
    reply = f"{error.code}: {_brief(error)}{fix}"
    if error.code in _NOT_FOUND:
        return ObjectNotFoundError(f"{where}: it does not exist")
    if error.code == "PreconditionFailed":
        return StoreConflictError(f"{where}: it changed meanwhile")

    kind: type[TransientError | PermanentError] = (
        StoreUnavailableError if error.code in _TRANSIENT else StoreRefusedError
    )

    return kind(f"{where}: {reply}")


def _brief(error: Exception) -> str:
    message = getattr(error, "message", None) or str(error)
    return " ".join(str(message).split())[:200]

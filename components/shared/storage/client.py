"""Client of an S3 object store: listing, reading and writing objects, checked."""

import contextlib
import hashlib
import io
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from xml.etree.ElementTree import ParseError

from minio import Minio
from minio.error import InvalidResponseError, MinioException, S3Error

from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import (
    ConfigError,
    PermanentError,
    StreetVisionError,
    TransientError,
)
from components.shared.contracts.listing import shown
from components.shared.contracts.redaction import carries_credential, redacted
from components.shared.storage import conditional
from components.shared.storage.errors import (
    DigestMismatchError,
    ObjectNotFoundError,
    StoreConflictError,
    StoreRefusedError,
    StoreUnavailableError,
)
from components.shared.storage.retry import (
    DEADLINE_SECONDS,
    MOST_BODY_BYTES,
    Answers,
    RetryingPool,
)
from components.shared.storage.settings import StoreSettings

# One request carries at most this much, so that it ends well before the deadline at 0.5 MB/s.
PART_BYTES = MOST_BODY_BYTES
# Metadata with the SHA-256 of an object's bytes, in hex: `put` writes it, every read compares.
DIGEST = "sha256"
_DIGEST_HEADER = f"x-amz-meta-{DIGEST}"
# Objects that are read into memory: the largest are Parquet files of a data set.
MOST_IN_MEMORY_BYTES = 8 * 1024**3
# A pointer, a record of a failure: documents of this project in a store.
MOST_DOCUMENT_BYTES = 1024 * 1024
_LARGEST_OBJECT_BYTES = 50 * 1024**4  # limit of S3 since 2025, five times that of MinIO
_MOST_OBJECTS = 5_000_000  # in a listing, whose entries take 1.5 GB then
_MOST_PARTS = 10_000  # limit of S3
_MULTIPART_ATTEMPTS = 3
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_OWN_ERRORS = (
    DigestMismatchError,
    StoreConflictError,
    StoreRefusedError,
    StoreUnavailableError,
)
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
    endpoint, bucket and key and never a credential. What is read is from one version, complete, and
    equal to the SHA-256 that `put` stored with it; another answer than S3's is refused.
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
        with self._operation("list", bucket, prefix, Answers.LISTING):
            found: dict[str, StoredObject] = {}
            for item in self._listed(bucket, prefix):
                if item.key not in found:
                    self._pool.stepped()
                found[item.key] = item
                if len(found) > _MOST_OBJECTS:
                    raise StoreRefusedError(f"holds more than {_MOST_OBJECTS:,} objects")

        return sorted(item for item in found.values() if not item.key.endswith("/"))

    def first(self, bucket: str, prefix: str = "") -> StoredObject | None:
        """Return an object whose key starts with `prefix`, or None, by one page of the listing."""
        with self._operation("list", bucket, prefix, Answers.LISTING):
            objects = self._listed(bucket, prefix)
            return next((item for item in objects if not item.key.endswith("/")), None)

    def read(
        self,
        bucket: str,
        key: str,
        *,
        etag: str | None = None,
        most_bytes: int = MOST_IN_MEMORY_BYTES,
    ) -> bytes:
        """Return the object's bytes.

        Raises StoreConflictError where `etag` is given and the object has another,
        StoreRefusedError where it has more than `most_bytes`.
        """
        return self._read(bucket, key, etag, most_bytes)[0]

    def read_with_etag(
        self, bucket: str, key: str, *, most_bytes: int = MOST_IN_MEMORY_BYTES
    ) -> tuple[bytes, str]:
        """Return the object's bytes and the ETag to pass to `compare_and_swap`."""
        return self._read(bucket, key, None, most_bytes)

    def get(self, bucket: str, key: str, path: Path, *, etag: str | None = None) -> None:
        """Download an object to `path`, which appears complete or not at all.

        Raises StoreConflictError where `etag` is given and the object has another.
        """
        self._download(bucket, key, path, etag=etag)

    def get_verified(self, bucket: str, key: str, path: Path, sha256: str) -> None:
        """Download an object to `path`, which appears only if its SHA-256 is `sha256`.

        Raises DigestMismatchError.
        """
        self._download(bucket, key, path, sha256=sha256)

    def put(
        self,
        bucket: str,
        key: str,
        path: Path,
        *,
        sha256: str | None = None,
        on_read: Callable[[int], None] | None = None,
    ) -> str:
        """Upload a file, in parts where it is larger than PART_BYTES, and replace any object.

        Its SHA-256 is stored with the object, and compared with what was read from the file.

        Args:
            bucket: Name of the bucket.
            key: Key of the object.
            path: The file.
            sha256: SHA-256 of the file in hex; it is read for it where None.
            on_read: Called with the number of bytes whenever some were read from the file. An
                exception that it raises ends the upload and removes its parts: afterwards there is
                a whole object or none.

        Returns:
            The object's ETag.

        Raises:
            DigestMismatchError: the file changed meanwhile; there is no object, or the former one.
        """
        size = path.stat().st_size
        sha256 = sha256 or _sha256(path)
        with self._operation("put", bucket, key, Answers.UPLOAD):
            for attempt in range(1, _MULTIPART_ATTEMPTS + 1):
                with path.open("rb") as stream:
                    try:
                        # One part at a time: the deadline is kept per thread.
                        written = self._client.put_object(
                            bucket,
                            key,
                            _Observed(stream, size, sha256, self._step(on_read)),
                            size,
                            metadata={DIGEST: sha256},
                            part_size=part_bytes(size),
                            num_parallel_uploads=1,
                        )
                        return _etag_of(written.etag)
                    except S3Error as error:
                        # The answer to a completed upload was lost, so that the repeated request
                        # finds no upload.
                        if error.code != "NoSuchUpload" or attempt == _MULTIPART_ATTEMPTS:
                            raise

        raise AssertionError("every attempt returns or raises")

    def metadata(self, bucket: str, key: str) -> dict[str, str]:
        """Return the object's metadata, names in lower case. Raises ObjectNotFoundError."""
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

    def _listed(self, bucket: str, prefix: str) -> Iterator[StoredObject]:
        """Yield the entries of a listing as they come, folder markers too."""
        for entry in self._client.list_objects(bucket, prefix=prefix, recursive=True):
            key, size = entry.object_name, entry.size
            if not key or not key.startswith(prefix) or size is None or size < 0:
                raise StoreRefusedError(
                    f"lists {shown(key)} of size {size}, which was not asked for"
                )
            yield StoredObject(key, size, _etag_of(entry.etag))

    def _read(self, bucket: str, key: str, etag: str | None, most_bytes: int) -> tuple[bytes, str]:
        buffer = io.BytesIO()
        version = self._read_into(buffer, bucket, key, etag=etag, most_bytes=most_bytes)
        return buffer.getvalue(), version

    def _download(
        self,
        bucket: str,
        key: str,
        path: Path,
        *,
        etag: str | None = None,
        sha256: str | None = None,
    ) -> None:
        partial = path.with_name(f".{path.name}.partial")
        try:
            with partial.open("wb") as stream:
                self._read_into(stream, bucket, key, etag=etag, sha256=sha256)
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def _read_into(
        self,
        stream: Any,
        bucket: str,
        key: str,
        *,
        etag: str | None = None,
        sha256: str | None = None,
        most_bytes: int = _LARGEST_OBJECT_BYTES,
    ) -> str:
        """Append the object's bytes to a stream, range by range; returns its ETag."""
        with self._operation("read", bucket, key, Answers.OBJECT):
            found, size, digest = None, 0, hashlib.sha256()
            while found is None or size < found.total:
                data, answered = self._range(bucket, key, size, found.etag if found else etag)
                if etag is not None and answered.etag != etag:
                    raise StoreConflictError("it changed since it was listed")
                if found is not None and answered != found:
                    raise StoreConflictError("it changed meanwhile")
                if answered.total > most_bytes:
                    raise StoreRefusedError(
                        f"has {answered.total:,} bytes, more than the {most_bytes:,} accepted here"
                    )

                found = answered
                stream.write(data)
                digest.update(data)
                size += len(data)
                self._pool.stepped()

            for expected in (sha256, found.sha256):
                if expected is not None and digest.hexdigest() != expected:
                    raise DigestMismatchError(
                        f"sha256 is {digest.hexdigest()[:12]}..., expected {expected[:12]}..."
                    )

            return found.etag

    def _range(
        self, bucket: str, key: str, offset: int, etag: str | None
    ) -> "tuple[bytes, _Version]":
        """Return the bytes from `offset` on, at most PART_BYTES, and the version they are from."""
        # If-Match: all ranges come from the same version.
        headers = {"If-Match": f'"{etag}"'} if etag else None
        try:
            answer = self._client.get_object(
                bucket, key, offset, PART_BYTES, request_headers=headers
            )
        except S3Error as error:
            # An empty object has no first byte.
            if error.code != "InvalidRange" or offset:
                raise
            return b"", self._empty(bucket, key)

        return _checked_range(answer, offset)

    def _empty(self, bucket: str, key: str) -> "_Version":
        headers = self._client.stat_object(bucket, key).metadata or {}
        version = _Version.of(headers, 0)
        if headers.get("Content-Length", "0") != "0":
            raise StoreRefusedError("answers that an object with bytes has no first one")
        return version

    def _step(self, on_read: Callable[[int], None] | None) -> Callable[[int], None]:
        """Return what to do with each number of bytes that an upload has read."""

        def read(n_bytes: int) -> None:
            self._pool.stepped()  # the part before this one has arrived
            if on_read is not None:
                on_read(n_bytes)

        return read

    def _where(self, bucket: str, key: str) -> str:
        return f"{self.endpoint} bucket {bucket!r} key {key!r}"

    @contextlib.contextmanager
    def _operation(
        self, verb: str, bucket: str, key: str, answers: Answers = Answers.NOTHING
    ) -> Iterator[None]:
        """Start the deadline and turn every failure into a typed error that names the object."""
        where = f"cannot {verb} {self._where(bucket, key)}"
        try:
            with self._pool.operation(answers):
                yield
        except S3Error as error:
            raise _typed(error, where) from None
        except InvalidResponseError as error:
            raise StoreRefusedError(
                f"{where}: the answer is not S3's ({_brief(error)}); check the endpoint"
            ) from None
        except ParseError:
            raise StoreRefusedError(
                f"{where}: the answer is no XML document; check the endpoint"
            ) from None
        except (MinioException, ValueError) as error:
            raise StoreRefusedError(f"{where}: {_brief(error)}") from None
        except _OWN_ERRORS as error:
            raise type(error)(f"{where}: {error}") from None


def part_bytes(size: int) -> int:
    """Return the size of the parts in which `Store.put` sends a file of `size` bytes.

    The ETag of the object depends on it.
    """
    return max(PART_BYTES, -(-size // _MOST_PARTS))


class _Version(NamedTuple):
    """What all ranges of one version of an object have in common.

    total: bytes; sha256: hex, None where none is stored with it.
    """

    etag: str
    total: int
    number: str | None
    sha256: str | None

    @classmethod
    def of(cls, headers: Mapping[str, str], total: int) -> "_Version":
        recorded = headers.get(_DIGEST_HEADER, "")
        return cls(
            etag=_etag_of(headers.get("ETag")),
            total=total,
            number=headers.get("x-amz-version-id"),
            sha256=recorded if _SHA256.fullmatch(recorded) else None,
        )


def _checked_range(answer: Any, offset: int) -> tuple[bytes, _Version]:
    """Return the bytes and the version of an answer to a request for PART_BYTES from `offset` on.

    Raises StoreRefusedError unless it has these bytes, all of them and no others.
    """
    if answer.status != 206:
        kind = answer.headers.get("Content-Type", "no Content-Type")
        raise StoreRefusedError(
            f"ignores the Range header (HTTP {answer.status}, {kind}); check the endpoint, and"
            " whether a login or a proxy is before it"
        )
    coding = answer.headers.get("Content-Encoding", "")
    if coding not in ("", "identity", "aws-chunked"):
        raise StoreRefusedError(
            f"is stored with Content-Encoding {shown(coding)}; store it uncompressed"
        )

    data = answer.read(decode_content=False)
    described = answer.headers.get("Content-Range", "")
    found = _CONTENT_RANGE.fullmatch(described)
    first, last, total = (int(number) for number in found.groups()) if found else (-1, -1, 0)
    last_wanted = min(offset + PART_BYTES, total) - 1
    if (first, last) != (offset, last_wanted) or len(data) != last - first + 1 or not data:
        raise StoreRefusedError(
            f"sends {len(data)} bytes as range {shown(described)}, asked for those from {offset} on"
        )

    return data, _Version.of(answer.headers, total)


def _etag_of(given: str | None) -> str:
    """Return an ETag without quotes; raise StoreRefusedError where there is none."""
    etag = (given or "").strip('"')
    if not etag:
        raise StoreRefusedError(
            "answers without an ETag, which every S3 store sends; check the endpoint"
        )
    return etag


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class _Observed:
    """A binary stream of a file's bytes, whose reads are observed.

    The last bytes are only handed out if the whole has the expected SHA-256, so that a file that
    changed meanwhile never becomes an object.
    """

    def __init__(
        self, stream: BinaryIO, size: int, sha256: str, on_read: Callable[[int], None]
    ) -> None:
        self._stream, self._left, self._sha256, self._on_read = stream, size, sha256, on_read
        self._digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._digest.update(data)
        self._left -= len(data)
        if (self._left <= 0 or not data) and self._digest.hexdigest() != self._sha256:
            raise DigestMismatchError(
                f"{self._stream.name} changed while it was sent; run the command again"
            )

        self._on_read(len(data))
        return data


def split_uri(uri: str) -> tuple[str, str]:
    """Split s3://bucket/key/or/prefix into bucket and key. Raises ConfigError."""
    if carries_credential(uri):
        raise ConfigError(
            f"{redacted(uri)!r} carries a credential; take it out, and set"
            f" {Variable.S3_ACCESS_KEY} and {Variable.S3_SECRET_KEY}"
        )
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

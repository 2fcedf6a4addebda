"""Conditional writes, by which one of several writers wins, and the probe for stores without them.

Own code, because the minio client has no argument for conditions. A PUT that it presigns carries
them as headers: If-None-Match or If-Match.
"""

import contextlib
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Protocol

from minio import Minio
from minio.error import S3Error

from components.shared.contracts.errors import StreetVisionError
from components.shared.storage.errors import (
    ObjectNotFoundError,
    StoreConflictError,
    StoreRefusedError,
    StoreUnsuitableError,
)
from components.shared.storage.retry import RetryingPool

_PRESIGNED_FOR = timedelta(minutes=15)
_LOST = frozenset({409, 412})  # 409: another conditional write was under way


class ConditionalStore(Protocol):
    """What the probe needs of a store."""

    endpoint: str

    def put_if_absent(self, bucket: str, key: str, data: bytes) -> bool:
        """Create an object; False where it exists already."""

    def compare_and_swap(self, bucket: str, key: str, data: bytes, etag: str | None) -> str:
        """Replace the version with this ETag; StoreConflictError where it is another."""

    def delete(self, bucket: str, key: str) -> None:
        """Remove an object."""


def write(
    client: Minio,
    pool: RetryingPool,
    bucket: str,
    key: str,
    data: bytes,
    *,
    etag: str | None,
    read: Callable[[], tuple[bytes, str]],
) -> str | None:
    """Put an object under the condition that its present version is the expected one.

    Args:
        client: Signs the request.
        pool: Sends it, repeatedly in a bad network.
        bucket: Name of the bucket.
        key: Key of the object.
        data: The new bytes.
        etag: ETag of the version to replace; None where there must be no object.
        read: Returns the object's bytes and ETag as they are now.

    Returns:
        The new ETag, or None where another writer was first.

    Raises:
        S3Error: The store refuses the request for another reason.
    """
    url = client.presigned_put_object(bucket, key, expires=_PRESIGNED_FOR)
    condition = {"If-None-Match": "*"} if etag is None else {"If-Match": f'"{etag}"'}
    response = pool.urlopen("PUT", url, body=data, headers=condition)
    if response.status == 200:
        etag = str(response.headers.get("ETag", "")).strip('"')
        if not etag:
            raise StoreRefusedError("answers a write without an ETag; check the endpoint")
        return etag
    if response.status in _LOST or (response.status == 404 and etag is not None):
        # After a repeated request, the refusal may be due to our own first one, whose answer was
        # lost.
        return _etag_if_ours(read, data) if pool.attempts > 1 else None
    raise S3Error.fromxml(response)


def probe(store: ConditionalStore, bucket: str, prefix: str) -> None:
    """Raise StoreUnsuitableError unless both conditions are honoured in both directions."""
    key = f"{prefix}.probe-{uuid.uuid4().hex}"
    try:
        _check_conditions(store, bucket, key)
    except BaseException:
        # What failed first is the reason to show: a store that refused the write refuses the
        # clean-up as well.
        with contextlib.suppress(StreetVisionError):
            store.delete(bucket, key)
        raise

    store.delete(bucket, key)


def _check_conditions(store: ConditionalStore, bucket: str, key: str) -> None:
    where = f"{store.endpoint} bucket {bucket!r}"
    fix = "use a store that honours conditional writes (MinIO, AWS S3, SeaweedFS)"

    etag = store.compare_and_swap(bucket, key, b"first", None)
    if store.put_if_absent(bucket, key, b"second"):
        raise StoreUnsuitableError(f"{where} ignores If-None-Match on PUT; {fix}")

    try:
        store.compare_and_swap(bucket, key, b"third", "0" * 32)
    except StoreConflictError:
        pass
    else:
        raise StoreUnsuitableError(f"{where} ignores If-Match on PUT; {fix}")

    try:
        store.compare_and_swap(bucket, key, b"fourth", etag)
    except StoreConflictError:
        raise StoreUnsuitableError(f"{where} refuses an If-Match that matches; {fix}") from None


def _etag_if_ours(read: Callable[[], tuple[bytes, str]], data: bytes) -> str | None:
    try:
        found, etag = read()
    except ObjectNotFoundError:
        return None
    return etag if found == data else None

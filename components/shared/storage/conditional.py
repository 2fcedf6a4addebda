"""Conditional writes, by which one of several writers wins, and a probe of whether a store honours
them.

The minio client has no argument for conditions; a presigned PUT with If-None-Match or If-Match has.
"""

import contextlib
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING

from minio.error import S3Error

from components.shared.contracts.errors import StreetVisionError
from components.shared.storage.errors import (
    ObjectNotFoundError,
    StoreConflictError,
    StoreUnsuitableError,
)

if TYPE_CHECKING:
    from components.shared.storage.client import Store

_PRESIGNED_FOR = timedelta(minutes=15)
_LOST = frozenset({409, 412})  # 409: another conditional write was under way


def write(store: "Store", bucket: str, key: str, data: bytes, etag: str | None) -> str | None:
    """PUT `data` where the object has this ETag (None: where there is none); the new ETag, or None
    when too late.
    """
    client, pool = store._client, store._pool
    url = client.presigned_put_object(bucket, key, expires=_PRESIGNED_FOR)
    condition = {"If-None-Match": "*"} if etag is None else {"If-Match": f'"{etag}"'}
    response = pool.urlopen("PUT", url, body=data, headers=condition)
    if response.status == 200:
        return response.headers["ETag"].strip('"')
    if response.status in _LOST or (response.status == 404 and etag is not None):
        # After a repeated request, the refusal may be due to our own first one, whose answer was
        # lost.
        return _etag_if_ours(store, bucket, key, data) if pool.attempts > 1 else None
    raise S3Error.fromxml(response)


def probe(store: "Store", bucket: str, prefix: str) -> None:
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


def _check_conditions(store: "Store", bucket: str, key: str) -> None:
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


def _etag_if_ours(store: "Store", bucket: str, key: str, data: bytes) -> str | None:
    try:
        found, etag = store.read_with_etag(bucket, key)
    except ObjectNotFoundError:
        return None
    return etag if found == data else None

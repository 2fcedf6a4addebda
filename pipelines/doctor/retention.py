"""Check that checkpoints do not fill the store: old ones expire, deleted ones free their bytes.

In a bucket with versions a delete frees nothing: it adds a marker, and the bytes stay as a
noncurrent version until a lifecycle rule removes them. Training deletes a checkpoint for each that
it writes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from minio import Minio
from minio.error import MinioException, S3Error

from components.shared.storage import StoreSettings
from components.shared.storage.retry import Answers, RetryingPool
from pipelines.doctor.findings import unknown

T = TypeVar("T")

_DEADLINE_SECONDS = 10.0


@dataclass(frozen=True)
class Retention:
    """What happens to the objects below a prefix.

    expires_after_days: of current objects, None where no rule says so. keeps_versions: whether a
    deleted object's bytes stay. versions_expire_after_days: of those bytes. markers_expire: whether
    the delete markers that are left go as well.
    """

    expires_after_days: int | None
    keeps_versions: bool
    versions_expire_after_days: int | None
    markers_expire: bool


def retention(settings: StoreSettings, bucket: str, prefix: str) -> Retention:
    """Read the bucket's versioning and lifecycle rules as they apply to `prefix`.

    Raises CheckError (unknown) where these credentials may not look.
    """
    pool = RetryingPool(ca_file=settings.ca_file, deadline_seconds=_DEADLINE_SECONDS)
    store = Minio(
        settings.endpoint,
        access_key=settings.access_key,
        secret_key=settings.secret_key,
        region=settings.region,
        secure=settings.secure,
        http_client=pool,
    )

    rules = [rule for rule in _rules(store, pool, bucket) if _applies(rule, prefix)]
    expiry = [rule.expiration for rule in rules if rule.expiration]
    noncurrent = [rule.noncurrent_version_expiration for rule in rules]

    return Retention(
        expires_after_days=_least(item.days for item in expiry),
        keeps_versions=_keeps_versions(store, pool, bucket, prefix),
        versions_expire_after_days=_least(item.noncurrent_days for item in noncurrent if item),
        markers_expire=any(item.expired_object_delete_marker for item in expiry),
    )


def _rules(store: Minio, pool: RetryingPool, bucket: str) -> list[Any]:
    lifecycle = _setting(
        lambda: store.get_bucket_lifecycle(bucket),
        pool,
        f"lifecycle rules of bucket {bucket}",
        f"mc ilm rule list ALIAS/{bucket}",
    )
    return list(lifecycle.rules) if lifecycle else []


def _keeps_versions(store: Minio, pool: RetryingPool, bucket: str, prefix: str) -> bool:
    """Whether versions are on for the prefix; MinIO can leave prefixes out."""
    found = _setting(
        lambda: store.get_bucket_versioning(bucket),
        pool,
        f"versioning of bucket {bucket}",
        f"mc version info ALIAS/{bucket}",
    )
    excluded = any(prefix.startswith(item) for item in found.excluded_prefixes or [] if item)
    return found.status == "Enabled" and not excluded


def _setting(read: Callable[[], T], pool: RetryingPool, what: str, command: str) -> T:
    """Return a setting of the bucket; `command` shows it to whoever may look."""
    try:
        with pool.operation(Answers.SETTINGS):
            return read()
    except S3Error as error:
        raise unknown(
            f"{what} cannot be looked at ({error.code})",
            f"{command}, with credentials that may look",
        ) from None
    except (MinioException, ValueError) as error:
        raise unknown(f"{what} cannot be read ({type(error).__name__})") from None


def _applies(rule: Any, prefix: str) -> bool:
    of_rule = (rule.rule_filter and rule.rule_filter.prefix) or ""
    return bool(rule.status == "Enabled" and prefix.startswith(of_rule))


def _least(days: Any) -> int | None:
    return min((int(item) for item in days if item), default=None)

"""What becomes of checkpoints in a bucket, counted in bytes at a real S3 server."""

from pathlib import Path

import pytest
from minio import Minio
from minio.commonconfig import ENABLED, Filter
from minio.lifecycleconfig import (
    Expiration,
    LifecycleConfig,
    NoncurrentVersionExpiration,
    Rule,
)
from minio.versioningconfig import VersioningConfig

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import writing
from components.shared.contracts.options import LaunchConfig
from components.shared.storage import Store, StoreSettings
from components.shared.training.checkpoint.remote import RemoteCheckpoints
from pipelines.doctor import retention as module
from pipelines.doctor.retention import Retention, retention

PREFIX = "checkpoints/"
N_CHECKPOINTS, WEIGHTS_BYTES = 5, 256 * 1024


def _client(settings: StoreSettings) -> Minio:
    return Minio(
        settings.endpoint,
        access_key=settings.access_key,
        secret_key=settings.secret_key,
        region=settings.region,
        secure=settings.secure,
    )


def _train(settings: StoreSettings, bucket: str, folder: Path) -> None:
    """Store checkpoints as a training does, which keeps the newest one."""
    remote = RemoteCheckpoints(Store(settings), f"s3://{bucket}/checkpoints", "0123abcd")
    remote.claim()
    for step in range(1, N_CHECKPOINTS + 1):
        path = folder / f"step-{step:09d}"
        with writing(path, kind=Kind.TRAINING_STATE, step="toy", config=LaunchConfig()) as out:
            (out / "weights").write_bytes(bytes([step]) * WEIGHTS_BYTES)
        remote.upload(path)


def _kept_bytes(settings: StoreSettings, bucket: str) -> int:
    """Bytes of all versions: what the volume holds."""
    found = _client(settings).list_objects(bucket, recursive=True, include_version=True)
    return sum(item.size or 0 for item in found if not item.is_delete_marker)


def _versions(settings: StoreSettings, bucket: str) -> None:
    _client(settings).set_bucket_versioning(bucket, VersioningConfig(ENABLED))


def test_without_versions_a_training_holds_its_newest_checkpoint_only(
    s3: StoreSettings, bucket: str, tmp_path: Path
) -> None:
    assert not retention(s3, bucket, PREFIX).keeps_versions
    _train(s3, bucket, tmp_path)
    assert WEIGHTS_BYTES <= _kept_bytes(s3, bucket) < 2 * WEIGHTS_BYTES


def test_with_versions_every_deleted_checkpoint_stays_and_is_told(
    s3: StoreSettings, bucket: str, tmp_path: Path
) -> None:
    _versions(s3, bucket)
    _train(s3, bucket, tmp_path)
    assert _kept_bytes(s3, bucket) >= N_CHECKPOINTS * WEIGHTS_BYTES
    assert len(Store(s3).list(bucket, f"{PREFIX}0123abcd/step-")) == 2  # weights and manifest
    assert retention(s3, bucket, PREFIX) == Retention(None, True, None, False)


def test_rules_of_the_prefix_and_above_count_and_others_do_not(
    s3: StoreSettings, bucket: str
) -> None:
    def rule(name: str, prefix: str, **actions: object) -> Rule:
        status = "Disabled" if name == "off" else ENABLED
        return Rule(status, rule_id=name, rule_filter=Filter(prefix=prefix), **actions)  # type: ignore[arg-type]

    _versions(s3, bucket)
    rules = [
        rule("all", "", noncurrent_version_expiration=NoncurrentVersionExpiration(30)),
        rule("ours", PREFIX, expiration=Expiration(days=30)),
        rule("old", PREFIX, noncurrent_version_expiration=NoncurrentVersionExpiration(1)),
        rule("runs", "runs/", expiration=Expiration(days=2)),
        rule("off", PREFIX, expiration=Expiration(days=3)),
    ]
    _client(s3).set_bucket_lifecycle(bucket, LifecycleConfig(rules))
    assert retention(s3, bucket, PREFIX) == Retention(30, True, 1, False)


def test_a_prefix_that_minio_leaves_out_keeps_no_versions(
    s3: StoreSettings, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SeaweedFS has no excluded prefixes: the answer is that of MinIO's reference."""
    excluded = VersioningConfig(ENABLED, excluded_prefixes=[PREFIX])
    monkeypatch.setattr(module.Minio, "get_bucket_versioning", lambda *_: excluded)
    assert not retention(s3, bucket, PREFIX).keeps_versions
    assert retention(s3, bucket, "other/").keeps_versions

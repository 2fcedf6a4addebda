"""Upload and download of artifact directories, which appear complete or not at all.

The manifest is written last and read first: an upload that was interrupted has none and does not
exist for readers.
"""

import contextlib
import shutil
from pathlib import Path

from components.shared.contracts.artifacts import (
    ANY_SPLIT,
    MANIFEST,
    Manifest,
    beside_manifest,
    make_readable,
    parse_manifest,
    verify_dir,
)
from components.shared.contracts.documents import MOST_BYTES
from components.shared.storage.client import Store
from components.shared.storage.errors import ObjectNotFoundError


def upload_artifact(store: Store, path: Path, bucket: str, prefix: str, *, kind: str) -> Manifest:
    """Copy the artifact at `path` below `prefix`; each file is verified while it is sent.

    Raises ArtifactError or a store error; DigestMismatchError where a file is not what the manifest
    says. The manifest is sent after all files, so that then there is no artifact.
    """
    manifest = verify_dir(path, kind, split=ANY_SPLIT, hashed=False)
    for name in sorted(manifest.files):
        digest = str(manifest.files[name]["sha256"])
        store.put(bucket, _join(prefix, name), path / name, sha256=digest)
    upload_manifest(store, path, bucket, prefix, kind=kind)
    return manifest


def upload_manifest(store: Store, path: Path, bucket: str, prefix: str, *, kind: str) -> None:
    """Copy the artifact's manifest, and before it what it does not list: a signature over it."""
    for name in (*beside_manifest(kind), MANIFEST):
        if (path / name).is_file():
            store.put(bucket, _join(prefix, name), path / name)


def download_artifact(store: Store, bucket: str, prefix: str, path: Path, *, kind: str) -> Manifest:
    """Copy the artifact below `prefix` to `path`, which appears only if every file is verified.

    Raises ObjectNotFoundError where there is no (complete) artifact, ArtifactError or
    DigestMismatchError where it differs from its manifest.
    """
    where = f"s3://{bucket}/{_join(prefix, MANIFEST)}"
    document = store.read(bucket, _join(prefix, MANIFEST), most_bytes=MOST_BYTES)
    listed = parse_manifest(document, where).files
    staging = path.with_name(f".{path.name}.download")
    shutil.rmtree(staging, ignore_errors=True)

    try:
        for name in sorted(listed):
            target = staging / name
            target.parent.mkdir(parents=True, exist_ok=True)
            store.get_verified(bucket, _join(prefix, name), target, listed[name]["sha256"])

        staging.mkdir(parents=True, exist_ok=True)
        for name in beside_manifest(kind):
            with contextlib.suppress(ObjectNotFoundError):
                data = store.read(bucket, _join(prefix, name), most_bytes=MOST_BYTES)
                (staging / name).write_bytes(data)
        (staging / MANIFEST).write_bytes(document)
        make_readable(staging)
        # Every file was hashed while it was received.
        manifest = verify_dir(staging, kind, split=ANY_SPLIT, hashed=False)
        shutil.rmtree(path, ignore_errors=True)
        staging.replace(path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)

    return manifest


def _join(prefix: str, name: str) -> str:
    return f"{prefix.rstrip('/')}/{name}" if prefix else name

"""Registry of bundles in the object store, and the pointer to the champion among them.

Layout below the prefix: `bundles/<content digest>/...` never changes once complete; `champion.json`
is the one pointer, moved by compare-and-swap only.
"""

from dataclasses import dataclass
from pathlib import Path

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import MANIFEST, verify_dir
from components.shared.contracts.config import canonical_json
from components.shared.contracts.documents import as_type, parse_json
from components.shared.contracts.errors import ArtifactError
from components.shared.storage.artifacts import download_artifact, upload_artifact
from components.shared.storage.client import MOST_DOCUMENT_BYTES, Store
from components.shared.storage.errors import ObjectNotFoundError


@dataclass(frozen=True)
class Champion:
    """The promoted bundle.

    digest and previous: content digests; etag: this version of the pointer.
    """

    digest: str
    previous: str | None
    etag: str


@dataclass(frozen=True)
class _Pointer:
    """The document of champion.json."""

    digest: str
    previous: str | None


class BundleRegistry:
    """Bundles and the champion pointer in one bucket, below one prefix."""

    def __init__(self, store: Store, bucket: str, prefix: str = "") -> None:
        """Raise StoreUnsuitableError where the store ignores conditions on writes."""
        self._store, self._bucket = store, bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        store.require_conditional_writes(bucket, self._prefix)

    def put_bundle(self, path: Path) -> str:
        """Upload a bundle under its content digest, unless it is there, and return the digest."""
        digest = verify_dir(path, Kind.BUNDLE).content_digest
        if not self._complete(digest):
            upload_artifact(
                self._store, path, self._bucket, self._location(digest), kind=Kind.BUNDLE
            )
        return digest

    def get_bundle(self, digest: str, path: Path) -> None:
        """Download a bundle.

        Raises ObjectNotFoundError, or ArtifactError where its content digest is not `digest`.
        """
        manifest = download_artifact(
            self._store, self._bucket, self._location(digest), path, kind=Kind.BUNDLE
        )
        if manifest.content_digest != digest:
            raise ArtifactError(
                f"bundle {digest[:12]}... in the registry holds {manifest.content_digest[:12]}..."
            )

    def champion(self) -> Champion | None:
        """Return the current champion, or None before the first promotion.

        Raises ArtifactError for a pointer that it cannot read.
        """
        try:
            data, etag = self._store.read_with_etag(
                self._bucket, self._pointer, most_bytes=MOST_DOCUMENT_BYTES
            )
        except ObjectNotFoundError:
            return None

        where = f"s3://{self._bucket}/{self._pointer}"
        pointer = as_type(parse_json(data, where), _Pointer, where)
        return Champion(pointer.digest, pointer.previous, etag)

    def promote(self, digest: str, over: Champion | None) -> Champion:
        """Replace the champion `over` by `digest`.

        Raises StoreConflictError where `over` is not the champion any more.
        """
        if not self._complete(digest):
            raise ObjectNotFoundError(
                f"bundle {digest[:12]}... is not in s3://{self._bucket}/{self._prefix}bundles/"
            )

        previous = over.digest if over else None
        data = canonical_json({"digest": digest, "previous": previous}).encode()
        etag = self._store.compare_and_swap(
            self._bucket, self._pointer, data, over.etag if over else None
        )

        return Champion(digest, previous, etag)

    @property
    def _pointer(self) -> str:
        return f"{self._prefix}champion.json"

    def _location(self, digest: str) -> str:
        return f"{self._prefix}bundles/{digest}"

    def _complete(self, digest: str) -> bool:
        manifest = f"{self._location(digest)}/{MANIFEST}"
        return any(entry.key == manifest for entry in self._store.list(self._bucket, manifest))

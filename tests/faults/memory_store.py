"""A store in memory with S3's guarantees (each call is atomic), that ends the process at a chosen
call.
"""

import hashlib
from pathlib import Path

from components.shared.storage.client import StoredObject
from components.shared.storage.errors import (
    DigestMismatchError,
    ObjectNotFoundError,
    StoreConflictError,
)
from tests.faults.torn import PowerCutError


class MemoryStore:
    """What RemoteCheckpoints needs of Store."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.calls_left = 10**9

    def _call(self) -> None:
        self.calls_left -= 1
        if self.calls_left < 0:
            raise PowerCutError

    def list(self, bucket: str, prefix: str = "") -> list[StoredObject]:
        self._call()
        return [
            StoredObject(key, len(data), "")
            for key, data in sorted(self.objects.items())
            if key.startswith(prefix)
        ]

    def read(self, bucket: str, key: str, *, most_bytes: int = 2**20) -> bytes:
        del most_bytes
        return self.read_with_etag(bucket, key)[0]

    def read_with_etag(
        self, bucket: str, key: str, *, most_bytes: int = 2**20
    ) -> tuple[bytes, str]:
        del most_bytes
        self._call()
        if key not in self.objects:
            raise ObjectNotFoundError(key)
        return self.objects[key], hashlib.sha256(self.objects[key]).hexdigest()

    def get_verified(self, bucket: str, key: str, path: Path, sha256: str) -> None:
        data, actual = self.read_with_etag(bucket, key)
        if actual != sha256:
            raise DigestMismatchError(key)
        path.write_bytes(data)

    def put(self, bucket: str, key: str, path: Path, *, sha256: str | None = None) -> None:
        del sha256
        self._call()
        self.objects[key] = path.read_bytes()

    def compare_and_swap(self, bucket: str, key: str, data: bytes, etag: str | None) -> str:
        self._call()
        present = self.objects.get(key)
        if etag != (None if present is None else hashlib.sha256(present).hexdigest()):
            raise StoreConflictError(key)
        self.objects[key] = data
        return hashlib.sha256(data).hexdigest()

    def delete(self, bucket: str, key: str) -> None:
        self._call()
        self.objects.pop(key, None)

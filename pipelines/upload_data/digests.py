"""Digests of a local file, as an object store would report them for the object made from it."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from components.shared.storage.client import part_bytes


@dataclass(frozen=True)
class FileDigests:
    """Digests of a file's bytes.

    etag: what S3 answers to `Store.put`, unless the bucket encrypts with a key service: the MD5 in
    hex, or of a file sent in parts the MD5 of the parts' MD5s and their number. sha256: hex.
    """

    etag: str
    sha256: str


def digests_of(path: Path) -> FileDigests:
    """Read a file once, a part at a time. Raises OSError where it cannot be read."""
    part_size = part_bytes(path.stat().st_size)
    whole = hashlib.sha256()
    parts: list[bytes] = []

    with path.open("rb") as stream:
        while part := stream.read(part_size):
            whole.update(part)
            parts.append(_md5(part))

    if len(parts) <= 1:
        return FileDigests(
            "".join(part.hex() for part in parts) or _md5(b"").hex(), whole.hexdigest()
        )

    return FileDigests(f"{_md5(b''.join(parts)).hex()}-{len(parts)}", whole.hexdigest())


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()

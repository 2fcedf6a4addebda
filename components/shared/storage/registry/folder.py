"""Documents below one prefix of a bucket: read and checked, created at most once."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from components.shared.contracts.config import canonical_json
from components.shared.contracts.documents import as_type, parse_json
from components.shared.contracts.errors import TransientError
from components.shared.storage.client import MOST_DOCUMENT_BYTES, Store, StoredObject
from components.shared.storage.errors import ObjectNotFoundError

T = TypeVar("T")

_NUMBERED = re.compile(r"([0-9]{6})\.json")
_N_TRIES = 1000  # writers of one chain at once: more than any cluster starts


@dataclass(frozen=True)
class Folder:
    """A prefix of a bucket; `prefix` is empty or ends with a slash."""

    store: Store
    bucket: str
    prefix: str

    def folder(self, name: str) -> "Folder":
        """Return the folder `name` below this one."""
        return Folder(self.store, self.bucket, f"{self.prefix}{name}/")

    def where(self, name: str) -> str:
        """Return what messages call an object."""
        return f"s3://{self.bucket}/{self.prefix}{name}"

    def objects(self, prefix: str = "") -> list[StoredObject]:
        """Return all objects whose name starts with `prefix`, with their whole keys."""
        return self.store.list(self.bucket, self.prefix + prefix)

    def read(self, name: str, kind: type[T]) -> T:
        """Return a document as an object of a dataclass; raises ArtifactError for any other."""
        return self.read_with_etag(name, kind)[0]

    def read_with_etag(self, name: str, kind: type[T]) -> tuple[T, str]:
        """Return a document, and the ETag by which it is replaced."""
        data, etag = self.store.read_with_etag(
            self.bucket, self.prefix + name, most_bytes=MOST_DOCUMENT_BYTES
        )
        return as_type(parse_json(data, self.where(name)), kind, self.where(name)), etag

    def read_if_any(self, name: str, kind: type[T]) -> T | None:
        """Return a document, or None where there is none."""
        try:
            return self.read(name, kind)
        except ObjectNotFoundError:
            return None

    def create(self, name: str, document: Any) -> bool:
        """Create a document; False where there is another one."""
        data = canonical_json(document).encode()
        return self.store.put_if_absent(self.bucket, self.prefix + name, data)

    def numbers(self) -> list[int]:
        """Return the numbers of the chain 000001.json, 000002.json, ..., ascending."""
        names = (item.key.removeprefix(self.prefix) for item in self.objects())
        return [int(found[1]) for name in names if (found := _NUMBERED.fullmatch(name))]


def free_numbers(newest: int, where: str) -> Iterator[int]:
    """Yield the numbers after `newest`, each to be tried until one is free.

    Args:
        newest: the largest number that is known to be taken.
        where: what the message calls the chain.

    Raises:
        TransientError: other writers were first every time.
    """
    yield from range(newest + 1, newest + 1 + _N_TRIES)
    raise TransientError(f"{where}: other runs recorded {_N_TRIES} entries meanwhile")


def numbered(number: int) -> str:
    """Return the name of a chain's entry."""
    return f"{number:06d}.json"

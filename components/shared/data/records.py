"""Records that outlive a run: named objects below `STREETVISION_LINEAGES`, created at most once.

The place is a folder, or a prefix of a bucket. Of two writers of one name, one wins.
"""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from components.shared.contracts.documents import read_bytes
from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError

if TYPE_CHECKING:
    from components.shared.storage import Store


_MOST_BYTES = 2**30  # of a table of all samples


class Records(Protocol):
    """Named objects in one place: a folder, or a prefix of a bucket."""

    def names(self) -> list[str]:
        """Return the names of all objects, sorted."""

    def read(self, name: str) -> bytes:
        """Return an object's bytes."""

    def put(self, name: str, data: bytes) -> None:
        """Write an object whose name says what its bytes are."""

    def create(self, name: str, data: bytes) -> bool:
        """Create an object; False where there is one with other bytes."""


def open_records(name: str) -> Records | None:
    """Return the records below `name`, or None where STREETVISION_LINEAGES is not set.

    Raises:
        ConfigError: the address is malformed.
    """
    place = os.environ.get(Variable.LINEAGES, "")
    if not place:
        return None
    if not place.startswith("s3://"):
        return _Folder(Path(place) / name)

    from components.shared.storage import Store, split_uri

    bucket, prefix = split_uri(place)
    return _Prefix(Store.from_environment(), bucket, f"{prefix.strip('/')}/{name}/")


class _Folder:
    """Records in a folder; a file appears with its whole content, under a name that is free."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def names(self) -> list[str]:
        return sorted(file.name for file in self._path.glob("*")) if self._path.is_dir() else []

    def read(self, name: str) -> bytes:
        return read_bytes(self._path / name, most_bytes=_MOST_BYTES, linked=True)

    def put(self, name: str, data: bytes) -> None:
        self.create(name, data)

    def create(self, name: str, data: bytes) -> bool:
        try:
            self._path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"{Variable.LINEAGES}: {self._path} cannot be made ({error.strerror})"
            ) from error

        target = self._path / name
        # Hidden, and of its own: two threads may create the same name at once.
        with tempfile.NamedTemporaryFile(prefix=".", dir=self._path) as partial:
            partial.write(data)
            partial.flush()
            try:
                os.link(partial.name, target)
            except FileExistsError:
                return target.read_bytes() == data
        target.chmod(0o644)
        return True


class _Prefix:
    """Records below a prefix of a bucket."""

    def __init__(self, store: "Store", bucket: str, prefix: str) -> None:
        self._store, self._bucket, self._prefix = store, bucket, prefix.lstrip("/")

    def names(self) -> list[str]:
        found = self._store.list(self._bucket, self._prefix)
        return [item.key.removeprefix(self._prefix) for item in found]

    def read(self, name: str) -> bytes:
        return self._store.read(self._bucket, self._prefix + name)

    def put(self, name: str, data: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "table"
            file.write_bytes(data)
            self._store.put(self._bucket, self._prefix + name, file)  # in parts, where it is large

    def create(self, name: str, data: bytes) -> bool:
        return self._store.put_if_absent(self._bucket, self._prefix + name, data)

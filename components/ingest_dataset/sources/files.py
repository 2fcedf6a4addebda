"""Which files are at a source's place, a local folder or `s3://bucket/prefix`, and may this one be
read?
"""

import io
import os
from pathlib import Path
from typing import Protocol

from components.shared.contracts.errors import DataError
from components.shared.data.decode import ImageRejectedError


class Files(Protocol):
    """What a place offers. Names are POSIX paths below it."""

    address: str

    def names(self) -> list[str]:
        """All files, sorted."""

    def read(self, name: str) -> bytes:
        """The bytes of one file. Raises ImageRejectedError where it is missing or leads out of the
        place.
        """

    def seekable(self, name: str) -> Path | io.BytesIO:
        """One file for random access; errors as in `read`."""


def files_at(data: str) -> Files:
    """The place `data`: a folder, a single Parquet file, or either below s3://bucket. Raises
    DataError.
    """
    return StoredFiles(data) if data.startswith("s3://") else LocalFiles(data)


class LocalFiles:
    """A folder, or a single file as if it were alone in its folder."""

    def __init__(self, data: str) -> None:
        """Raises DataError where `data` is neither."""
        place = Path(data)
        if not place.exists():
            raise DataError(f"data={data!r} does not exist")
        if place.is_file() and place.suffix != ".parquet":
            raise DataError(
                f"data={data!r} is a file but not .parquet; give a folder with a CSV, or Parquet"
            )
        self._alone = place.name if place.is_file() else ""
        self._root = place.parent if self._alone else place
        self._real_root = self._root.resolve()
        self.address = str(self._root)

    def names(self) -> list[str]:
        """All files, sorted; links to folders are not followed."""
        if self._alone:
            return [self._alone]
        found = (Path(folder, name) for folder, _, names in os.walk(self._root) for name in names)
        return sorted(file.relative_to(self._root).as_posix() for file in found)

    def read(self, name: str) -> bytes:
        """The bytes of one file. Raises ImageRejectedError for a missing file or a link that leads
        out.
        """
        return self.seekable(name).read_bytes()

    def seekable(self, name: str) -> Path:
        """Where one file really is; errors as in `read`."""
        file = (self._root / name).resolve()
        if not file.is_relative_to(self._real_root):
            raise ImageRejectedError("symbolic link out of the source")
        if not file.is_file():
            raise ImageRejectedError("file does not exist")
        return file


class StoredFiles:
    """Objects below s3://bucket/prefix, or a single object."""

    def __init__(self, data: str) -> None:
        """Raises DataError where nothing is there, and the store's errors."""
        from components.shared.storage import Store

        self._store = Store.from_environment()
        self._bucket, _, prefix = data.removeprefix("s3://").partition("/")
        keys = {item.key for item in self._store.list(self._bucket, prefix.rstrip("/"))}
        # A listing by prefix also has its neighbours: "photos" matches "photos-old/1.jpg".
        self._folder = prefix.rstrip("/") + "/" if prefix else ""
        if prefix in keys:
            self._folder, keys = prefix.removesuffix(prefix.rpartition("/")[2]), {prefix}
        self._names = {
            key.removeprefix(self._folder) for key in keys if key.startswith(self._folder)
        }
        self.address = f"s3://{self._bucket}/{self._folder}".rstrip("/")
        if not self._names:
            raise DataError(f"data={data!r} holds no objects; is the prefix right?")

    def names(self) -> list[str]:
        """All objects, sorted."""
        return sorted(self._names)

    def read(self, name: str) -> bytes:
        """The bytes of one object. Raises ImageRejectedError where it is not there."""
        if name not in self._names:
            raise ImageRejectedError("file does not exist")
        return self._store.read(self._bucket, self._folder + name)

    def seekable(self, name: str) -> io.BytesIO:
        """The whole object in memory; errors as in `read`."""
        return io.BytesIO(self.read(name))

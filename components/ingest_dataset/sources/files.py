"""Files of a source in a local folder or below `s3://bucket/prefix`."""

import io
import os
from pathlib import Path
from typing import Protocol

from components.shared.contracts.errors import DataError
from components.shared.data.decode import ImageRejectedError


class Files(Protocol):
    """Files of one source; names are POSIX paths below its address."""

    address: str

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""

    def folder_links(self) -> list[str]:
        """Return the names of links to folders, which are not followed, sorted."""

    def read(self, name: str) -> bytes:
        """Return the bytes of one file.

        Raises:
            ImageRejectedError: the file is missing, or a link that points out of the source.
        """

    def seekable(self, name: str) -> Path | io.BytesIO:
        """Return one file for random access; errors as in `read`."""


def files_at(data: str) -> Files:
    """Open `data`: a folder, a single Parquet file, or either below s3://bucket.

    Raises:
        DataError: there is no such folder or file.
    """
    return StoredFiles(data) if data.startswith("s3://") else LocalFiles(data)


class LocalFiles:
    """A folder, or a single file as if it were alone in its folder."""

    def __init__(self, data: str) -> None:
        """Open the folder or Parquet file `data`; raise DataError where it is neither."""
        location = Path(data)
        if not location.exists():
            raise DataError(f"data={data!r} does not exist; is the path right?")
        if location.is_file() and location.suffix != ".parquet":
            raise DataError(
                f"data={data!r} is a file but not .parquet; give a folder with a CSV, Parquet, or"
                " one folder per class"
            )

        self._alone = location.name if location.is_file() else ""
        self._root = location.parent if self._alone else location
        self._real_root = self._root.resolve()
        self.address = str(self._root)

    def names(self) -> list[str]:
        """Return the names of all files, sorted; links to folders are not followed."""
        if self._alone:
            return [self._alone]
        found = (Path(folder, name) for folder, _, names in os.walk(self._root) for name in names)
        return sorted(file.relative_to(self._root).as_posix() for file in found)

    def folder_links(self) -> list[str]:
        """Return the names of links to folders, sorted."""
        if self._alone:
            return []
        found = (Path(folder, name) for folder, names, _ in os.walk(self._root) for name in names)
        return sorted(
            place.relative_to(self._root).as_posix() for place in found if place.is_symlink()
        )

    def read(self, name: str) -> bytes:
        """Return the bytes of one file; errors as in `Files.read`."""
        return self.seekable(name).read_bytes()

    def seekable(self, name: str) -> Path:
        """Return the resolved path of one file; errors as in `Files.read`."""
        file = (self._root / name).resolve()
        if not file.is_relative_to(self._real_root):
            raise ImageRejectedError("symbolic link out of the source")
        if not file.is_file():
            raise ImageRejectedError("file does not exist")
        return file


class StoredFiles:
    """Objects below s3://bucket/prefix, or a single object."""

    def __init__(self, data: str) -> None:
        """List the objects; raise DataError where there are none, and the store's errors."""
        from components.shared.storage import Store

        self._store = Store.from_environment()
        self._bucket, _, prefix = data.removeprefix("s3://").partition("/")
        keys = {item.key for item in self._store.list(self._bucket, prefix.rstrip("/"))}
        # A listing by prefix also has similar names: "photos" matches "photos-old/1.jpg".
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
        """Return the names of all objects, sorted."""
        return sorted(self._names)

    def folder_links(self) -> list[str]:
        """Return nothing: a store has no links."""
        return []

    def read(self, name: str) -> bytes:
        """Return the bytes of one object; ImageRejectedError where it does not exist."""
        if name not in self._names:
            raise ImageRejectedError("file does not exist")
        return self._store.read(self._bucket, self._folder + name)

    def seekable(self, name: str) -> io.BytesIO:
        """Return the whole object in memory; errors as in `read`."""
        return io.BytesIO(self.read(name))

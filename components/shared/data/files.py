"""Files of a source in a local folder or below `s3://bucket/prefix`."""

import io
import os
import stat
from pathlib import Path, PurePosixPath
from typing import Protocol

from components.shared.contracts.errors import DataError, one_line
from components.shared.contracts.listing import shown
from components.shared.contracts.regular_files import MOST_BYTES, check_regular, read_regular
from components.shared.data.decode import ImageRejectedError

PARQUET = ".parquet"
_IMAGES = (
    *(".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm"),
    *(".avif", ".heic", ".tif", ".tiff", ".webp"),
)
_HIDDEN = ("__MACOSX",)


class Files(Protocol):
    """Files of one source; names are POSIX paths below its address."""

    address: str

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""

    def folder_links(self) -> list[str]:
        """Return the names of links to folders, which are not followed, sorted."""

    def unreadable_folders(self) -> list[str]:
        """Return the names of folders that may not be listed, sorted."""

    def read(self, name: str) -> bytes:
        """Return the bytes of one file.

        Raises:
            ImageRejectedError: the file is missing, unreadable, no regular file, too large, or a
                link that points out of the source.
        """

    def version(self, name: str) -> str:
        """Return what changes where somebody replaces a file; empty of one that is not there."""

    def seekable(self, name: str) -> Path | io.BytesIO:
        """Return one file for random access, of any size; errors as in `read`."""


def is_image(name: str) -> bool:
    """Return whether a file's name says that it is an image."""
    return name.lower().endswith(_IMAGES)


def is_hidden(name: str) -> bool:
    """Return whether a file or one of its folders is hidden, or an object stands for a folder."""
    parts = PurePosixPath(name).parts
    return name.endswith("/") or any(part.startswith(".") or part in _HIDDEN for part in parts)


def files_at(data: str, option: str = "data") -> Files:
    """Open `data`: a folder, a single Parquet file, or either below s3://bucket.

    `option` is what messages call it.

    Raises:
        DataError: there is no such folder or file, or it may not be read.
    """
    return StoredFiles(data, option) if data.startswith("s3://") else LocalFiles(data, option)


class LocalFiles:
    """A folder, or a single file as if it were alone in its folder."""

    def __init__(self, data: str, option: str = "data") -> None:
        """Open the folder or Parquet file `data`; raise DataError where it is neither."""
        location, where = Path(data), f"{option}={shown(data)}"
        mode = _mode(location, where)
        if not stat.S_ISDIR(mode) and location.suffix != PARQUET:
            raise DataError(
                f"{where} is a file but not .parquet; give a folder with a CSV, Parquet, or one"
                " folder per class"
            )

        self._alone = "" if stat.S_ISDIR(mode) else location.name
        self._root = location.parent if self._alone else location
        self._real_root = self._root.resolve()
        self.address = str(self._root)
        self._names: list[str] = [self._alone] if self._alone else []
        self._links: list[str] = []
        self._unreadable: list[str] = []
        if not self._alone:
            self._list(where)

    def names(self) -> list[str]:
        """Return the names of all files, sorted; links to folders are not followed."""
        return self._names

    def folder_links(self) -> list[str]:
        """Return the names of links to folders, sorted."""
        return self._links

    def unreadable_folders(self) -> list[str]:
        """Return the names of folders that may not be listed, sorted."""
        return self._unreadable

    def read(self, name: str) -> bytes:
        """Return the bytes of one file; errors as in `Files.read`."""
        try:
            return read_regular(self._inside(name))
        except OSError as error:
            raise ImageRejectedError(_reason(error)) from error

    def version(self, name: str) -> str:
        """Return size and modification time of one file."""
        try:
            status = (self._root / name).stat()
        except OSError:
            return ""
        return f"{status.st_size} {status.st_mtime_ns}"

    def seekable(self, name: str) -> Path:
        """Return the resolved path of one file; errors as in `Files.read`."""
        file = self._inside(name)
        try:
            check_regular(file)
        except OSError as error:
            raise ImageRejectedError(_reason(error)) from error
        return file

    def _inside(self, name: str) -> Path:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise ImageRejectedError("the name is not UTF-8; rename the file") from None

        # Unlike Path.resolve it has no error for a link that leads to itself: opening has one.
        file = Path(os.path.realpath(self._root / name))
        if not file.is_relative_to(self._real_root):
            raise ImageRejectedError("symbolic link out of the source")
        return file

    def _list(self, where: str) -> None:
        """List the folder; raise DataError where that is not allowed."""
        refused: list[OSError] = []
        for folder, folders, names in os.walk(self._root, onerror=refused.append):
            below = Path(folder).relative_to(self._root)
            self._names += [(below / name).as_posix() for name in names]
            self._links += [
                (below / name).as_posix() for name in folders if Path(folder, name).is_symlink()
            ]

        for error in refused:
            if Path(error.filename) == self._root:
                raise DataError(f"{where} may not be listed ({error.strerror})")
            self._unreadable.append(Path(error.filename).relative_to(self._root).as_posix())
        for found in (self._names, self._links, self._unreadable):
            found.sort()


def _mode(location: Path, where: str) -> int:
    """Return the mode of a path; raise DataError where there is nothing that can be read."""
    try:
        return location.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{where} does not exist; is the path right?") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise DataError(f"{where} cannot be read ({reason})") from error


def _reason(error: OSError) -> str:
    """Return why a file is refused, in words."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "file does not exist"
    return error.strerror or one_line(error)


class StoredFiles:
    """Objects below s3://bucket/prefix, or a single object."""

    def __init__(self, data: str, option: str = "data") -> None:
        """List the objects; raise DataError where there are none, and the store's errors."""
        from components.shared.storage import Store, split_uri

        self._bucket, prefix = split_uri(data)
        self._store = Store.from_environment()
        found = self._store.list(self._bucket, prefix.rstrip("/"))
        keys, self._listed = {item.key for item in found}, {item.key: item for item in found}
        # A listing by prefix also has similar names: "photos" matches "photos-old/1.jpg".
        self._folder = prefix.rstrip("/") + "/" if prefix else ""
        if prefix in keys:
            self._folder, keys = prefix.removesuffix(prefix.rpartition("/")[2]), {prefix}
        self._names = {
            key.removeprefix(self._folder) for key in keys if key.startswith(self._folder)
        }
        self.address = f"s3://{self._bucket}/{self._folder}".rstrip("/")
        if not self._names:
            raise DataError(f"{option}={data!r} holds no objects; is the prefix right?")

    def names(self) -> list[str]:
        """Return the names of all objects, sorted."""
        return sorted(self._names)

    def folder_links(self) -> list[str]:
        """Return nothing: a store has no links."""
        return []

    def unreadable_folders(self) -> list[str]:
        """Return nothing: a listing is complete or fails."""
        return []

    def read(self, name: str) -> bytes:
        """Return the bytes of one object; ImageRejectedError: it does not exist or is too large."""
        if name in self._names and self._listed[self._folder + name].size > MOST_BYTES:
            raise ImageRejectedError(f"larger than {MOST_BYTES:,} bytes")
        return self.seekable(name).getvalue()

    def version(self, name: str) -> str:
        """Return size and ETag of one object."""
        if name not in self._names:
            return ""
        listed = self._listed[self._folder + name]
        return f"{listed.size} {listed.etag}"

    def seekable(self, name: str) -> io.BytesIO:
        """Return a whole object of any size in memory; errors as in `Files.read`."""
        if name not in self._names:
            raise ImageRejectedError("file does not exist")
        # The version that was listed, whose ETag and size the run's cache key was made from.
        listed = self._listed[self._folder + name]
        data = self._store.read(self._bucket, listed.key, etag=listed.etag, most_bytes=listed.size)
        return io.BytesIO(data)

"""Files that a folder of images may hold and that are no images: made here, refused everywhere."""

import contextlib
import ctypes
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1, 2
_VERSION_3 = 0x20080522


def _pipe(file: Path) -> Path:
    os.mkfifo(file)
    return file


def _device(file: Path) -> Path:
    """The device /dev/zero, or a link to it where making one is not allowed."""
    try:
        os.mknod(file, 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    except PermissionError:
        file.symlink_to("/dev/zero")
    return file


def _sparse(file: Path) -> Path:
    with file.open("wb") as stream:
        stream.truncate(200 << 30)
    return file


def _self_linked(file: Path) -> Path:
    file.symlink_to(file.name)
    return file


def _folder(file: Path) -> Path:
    file.mkdir()
    return file


# Kind -> maker of the file at a path, which returns the path to read, and the reason.
HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "pipe": (_pipe, r"not a regular file \(a pipe\)"),
    "endless": (_device, r"not a regular file \(a device\)"),
    "sparse": (_sparse, "larger than 1,073,741,824 bytes"),
    "self-linked": (_self_linked, "Too many levels of symbolic links"),
    "folder": (_folder, r"not a regular file \(a folder\)"),
    "long name": (lambda file: file.with_name("a" * 300 + ".jpg"), "File name too long"),
    "long path": (
        lambda file: file.parent.joinpath(*["b" * 200] * 30, "c.jpg"),
        "File name too long",
    ),
    "missing": (lambda file: file.with_name("missing.jpg"), "No such file or directory"),
}


@contextlib.contextmanager
def without_root_rights() -> Iterator[None]:
    """Take this thread's right to read everything, which root has, and give it back.

    Capabilities are a thread's own, so that only the calling thread loses them.
    """
    if os.geteuid() != 0:
        yield
        return

    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, data) == 0
    before = data[0]
    data[0] = before & ~(1 << _CAP_DAC_OVERRIDE) & ~(1 << _CAP_DAC_READ_SEARCH)
    assert libc.capset(header, data) == 0
    try:
        yield
    finally:
        data[0] = before
        assert libc.capset(header, data) == 0

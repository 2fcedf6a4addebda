"""Reading of a user's file, which may be anything: a pipe, a device, a link to itself, a terabyte.

Nothing here waits for ever or fills the memory. Every reason not to read is an OSError whose
`strerror` says it in words.
"""

import errno
import os
import stat
from pathlib import Path

MOST_BYTES = 1 << 30  # of one file: an uncompressed photograph of 100 megapixels in 16 bits
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def read_regular(file: Path, *, most_bytes: int = MOST_BYTES) -> bytes:
    """Return the bytes of a regular file, as many as it has when it is opened.

    Args:
        file: links are followed.
        most_bytes: a larger file is refused unread.

    Raises:
        OSError: there is no such file, it may not be read, is no regular file, or too large.
    """
    check_regular(file, most_bytes=most_bytes)

    # Not blocking, because a pipe may have taken the file's place meanwhile.
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        found = os.fstat(descriptor)
        _refuse(found, most_bytes)
        return stream.read(found.st_size)


def check_regular(file: Path, *, most_bytes: int | None = None) -> None:
    """Raise OSError where `file`, or what it links to, is no regular file or is too large.

    Opening a device can have effects, so that it is looked at first.
    """
    try:
        found = file.stat()
    except ValueError as error:  # a null character in the name
        raise OSError(errno.EINVAL, "not a file name") from error
    _refuse(found, most_bytes)


def _refuse(found: os.stat_result, most_bytes: int | None) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(found.st_mode)), "special")
        raise OSError(errno.EINVAL, f"not a regular file ({kind})")
    if most_bytes is not None and found.st_size > most_bytes:
        raise OSError(errno.EFBIG, f"larger than {most_bytes:,} bytes")

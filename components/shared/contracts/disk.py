"""A full disk: space is reserved before a map is written, and every library's error is one.

A map of a file without its space on the disk ends the process with a bus error, and no message,
where the kernel finds no space for a page.
"""

import errno
import os
import re
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# File systems that cannot reserve: network shares, FUSE, macOS.
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
# As numpy (whose errors have no number) and safetensors say it.
_FULL_TEXT = re.compile(
    r"No space left on device|Disk quota exceeded|\d+ requested and \d+ written"
    r"|Not enough free space to write"
)
_BLOCK_BYTES = 1 << 20


def reserve(file: Path) -> None:
    """Give all bytes of an existing file, also those never written, their space on the disk.

    Raises:
        OSError: ENOSPC or EDQUOT: there is not enough.
    """
    with file.open("r+b") as stream:
        size = os.fstat(stream.fileno()).st_size
        try:
            os.posix_fallocate(stream.fileno(), 0, size)
        except AttributeError:
            _rewrite(stream.fileno(), size)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise OSError(error.errno, error.strerror, str(file)) from error
            _rewrite(stream.fileno(), size)


def full_disk(error: BaseException) -> str:
    """Return in words that a disk is full, where this is what an error says; else an empty text."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return f"{error.filename or 'a file of the step'}: {error.strerror}"
    is_named = isinstance(error, OSError) or type(error).__name__ == "SafetensorError"
    if is_named and _FULL_TEXT.search(str(error)):
        return f"{os.strerror(errno.ENOSPC)} ({error})"
    return ""


def _rewrite(descriptor: int, size: int) -> None:
    """Write every block as it is, which makes a hole a part of the file."""
    for start in range(0, size, _BLOCK_BYTES):
        block = os.pread(descriptor, min(_BLOCK_BYTES, size - start), start)
        written = 0
        while written < len(block):
            written += os.pwrite(descriptor, block[written:], start + written)

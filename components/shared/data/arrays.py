"""Reading of `.npy` files: one function, which checks the header before numpy sees the file.

numpy evaluates the header as a Python literal, which fails in six ways for a damaged file, and
allocates what the header asks for. The headers that `numpy.save` writes have one form, so a pattern
decides, and the size of the file has to be that of the array.
"""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.shared.contracts.errors import ArtifactError
from components.shared.contracts.listing import shown

_MAGIC = b"\x93NUMPY\x01\x00"  # version 1.0: all that numpy.save writes for such headers
_HEADER = re.compile(
    rb"\{'descr': '([<>|]?[a-zA-Z][0-9]{0,3})', 'fortran_order': (True|False),"
    rb" 'shape': \(((?:[0-9]{1,15}, ?)*(?:[0-9]{1,15})?)\), \} *\n"
)
_LENGTH_BYTES = 2


def load_array(
    file: Path, dtype: npt.DTypeLike, shape: tuple[int | None, ...], *, mapped: bool = False
) -> npt.NDArray[Any]:
    """Read an array of this dtype and shape.

    Args:
        file: the `.npy` file.
        dtype: the dtype that the header has to name.
        shape: the shape that the header has to have; None: any length of that axis.
        mapped: map the file into memory instead of reading it.

    Raises:
        ArtifactError: the file is missing or no such array; nothing of it was read then but the
            header.
    """
    wanted = "(" + ", ".join("*" if n is None else str(n) for n in shape) + ")"
    found_dtype, found_shape, offset, size = _header(file)
    n_bytes = math.prod(found_shape) * np.dtype(dtype).itemsize

    fits = len(shape) == len(found_shape) and all(
        n in (None, m) for n, m in zip(shape, found_shape, strict=True)
    )
    if found_dtype != np.dtype(dtype).str or not fits:
        raise ArtifactError(
            f"{file}: is {shown(found_dtype)} {found_shape}, expected {np.dtype(dtype)} {wanted}"
        )
    if size - offset != n_bytes:
        raise ArtifactError(f"{file}: has {size - offset} bytes for {found_shape}, needs {n_bytes}")

    try:
        return np.asarray(np.load(file, mmap_mode="r" if mapped else None, allow_pickle=False))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{file}: cannot be read ({error})") from error


def _header(file: Path) -> tuple[str, tuple[int, ...], int, int]:
    """Return dtype, shape, offset of the data, and size of the file, in bytes."""
    if not file.is_file():
        raise ArtifactError(f"{file}: missing, or not a regular file")

    start = len(_MAGIC) + _LENGTH_BYTES
    with file.open("rb") as stream:
        prefix = stream.read(start)
        length = int.from_bytes(prefix[len(_MAGIC) :], "little")
        header = stream.read(length)
        size = stream.seek(0, 2)

    found = _HEADER.fullmatch(header)
    if len(prefix) != start or not prefix.startswith(_MAGIC) or found is None:
        raise ArtifactError(f"{file}: not an array as numpy.save writes it")

    shape = tuple(int(part) for part in found[3].decode().replace(",", " ").split())
    return found[1].decode(), shape, start + length, size

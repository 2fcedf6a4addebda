"""Tensors of a safetensors file, judged by its header and, for finiteness, by its values.

Own code beside the library safetensors, whose reader checks neither types nor values, gives errors
of no common class, and maps the file into memory, where a disk's error ends the process.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from components.shared.contracts.documents import MOST_BYTES, parse_json
from components.shared.contracts.errors import ArtifactError, PermanentError
from components.shared.contracts.listing import shown

# Floating-point types, by their bytes and NumPy's name; NumPy has no bfloat16.
_TYPES = {"F64": (8, "<f8"), "F32": (4, "<f4"), "F16": (2, "<f2"), "BF16": (2, "<u2")}
_CHUNK_BYTES = 8 * 2**20
_LENGTH_BYTES = 8  # of the header, before it


@dataclass(frozen=True)
class StoredTensor:
    """Type, shape, and range of bytes in the file of one tensor."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


def check_tensors(
    file: Path, where: str, *, error: type[PermanentError] = ArtifactError
) -> dict[str, StoredTensor]:
    """Return the tensors of a safetensors file, all of a floating-point type and finite.

    Args:
        file: A regular file.
        where: The file, for messages.
        error: What to raise.

    Raises:
        PermanentError: of the class `error`: not a safetensors file, no tensor, a tensor of
            another type, or a value that is not finite in float32.
    """
    try:
        with file.open("rb") as stream:
            tensors = _header(stream, file.stat().st_size, where, error)
            for name, tensor in tensors.items():
                if not _finite(stream, tensor):
                    raise error(
                        f"{where}: {shown(name)} has values that are not finite in float32; the"
                        " weights are damaged, or their training diverged"
                    )
    except OSError as cause:
        raise error(f"{where} cannot be read ({cause.strerror})") from cause

    return tensors


def _header(
    stream: BinaryIO, file_size: int, where: str, error: type[PermanentError]
) -> dict[str, StoredTensor]:
    length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
    first = _LENGTH_BYTES + length
    if file_size < _LENGTH_BYTES or not 2 <= length <= min(MOST_BYTES, file_size):
        raise error(f"{where} is not a safetensors file, or was cut off ({file_size:,} bytes)")

    document = parse_json(stream.read(length), f"{where}: header", error=error)
    if not isinstance(document, Mapping):
        raise error(f"{where} is not a safetensors file: its header is no JSON object")

    tensors = {
        name: _tensor(name, entry, first, where, error)
        for name, entry in document.items()
        if name != "__metadata__"
    }
    if not tensors:
        raise error(f"{where} holds no tensor")

    end = first
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.start, tensor.stop)):
        if tensor.start != end:
            raise error(f"{where}: the tensors of its header overlap or leave gaps")
        end = tensor.stop
    if end != file_size:
        raise error(f"{where} has {file_size:,} bytes, its header needs {end:,}; copy it again")

    return tensors


def _tensor(
    name: str, entry: Any, first: int, where: str, error: type[PermanentError]
) -> StoredTensor:
    place = f"{where}: tensor {shown(name)}"
    try:
        dtype, shape, (start, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
        numbers = [*shape, start, stop]
    except (KeyError, TypeError, ValueError) as cause:
        raise error(f"{place} has no dtype, shape and data_offsets") from cause

    if not all(isinstance(number, int) and 0 <= number < 2**53 for number in numbers):
        raise error(f"{place} has a shape or offsets that are no sizes")
    if not isinstance(dtype, str) or dtype not in _TYPES:
        raise error(
            f"{place} has the type {shown(dtype, 60)}; weights must be floating point"
            f" ({', '.join(_TYPES)})"
        )

    tensor = StoredTensor(dtype, tuple(shape), first + start, first + stop)
    if stop - start != tensor.size * _TYPES[dtype][0]:
        raise error(f"{place} has {stop - start:,} bytes, which its shape and type contradict")

    return tensor


def _finite(stream: BinaryIO, tensor: StoredTensor) -> bool:
    stream.seek(tensor.start)
    for start in range(tensor.start, tensor.stop, _CHUNK_BYTES):
        data = stream.read(min(_CHUNK_BYTES, tensor.stop - start))
        if not np.isfinite(_float32(data, tensor.dtype)).all():
            return False
    return True


def _float32(data: bytes, dtype: str) -> npt.NDArray[np.float32]:
    values = np.frombuffer(data, dtype=_TYPES[dtype][1])
    if dtype == "BF16":  # the upper half of a float32
        return (values.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False)

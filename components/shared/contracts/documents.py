"""Reading of documents: any bytes give a value of the expected type, or one typed error.

Everything that comes from a file or a store passes here before it is used: size before reading,
nesting and number of values after parsing, then the type by pydantic in strict mode. NaN, infinity
and integers beyond a double are refused, because arithmetic would meet them later without a name.
"""

import collections
import errno
import functools
import json
import math
import os
import re
import stat
from collections.abc import Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from components.shared.contracts.errors import ArtifactError, PermanentError
from components.shared.contracts.listing import first_of, shown

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")

MOST_BYTES = 4 * 2**20
MOST_DEPTH = 64
_LARGEST_NUMBER = 1e100
_MOST_PROBLEMS = 1000  # of which a list is made; each takes a kilobyte
_BYTES_PER_VALUE = 16  # no document of the project has values that are shorter on average
# A text that nothing closes is one too: sought again from each of its quotes, it would take the
# square of its length.
_BRACKETS_AND_TEXTS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[{\]}]', re.DOTALL)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def read_bytes(
    file: Path,
    *,
    most_bytes: int = MOST_BYTES,
    linked: bool = False,
    error: type[PermanentError] = ArtifactError,
) -> bytes:
    """Return a regular file's bytes.

    Raises `error` for a missing, special or unreadable file, and for one of more than `most_bytes`;
    for a symbolic link too, unless `linked`: a user's file may be one, an artifact's may not.
    """
    # Without O_NONBLOCK the opening of a FIFO waits for a writer.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if linked else os.O_NOFOLLOW)
    try:
        with open(os.open(file, flags), "rb") as stream:  # noqa: PTH123 - of a descriptor
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise error(f"{file}: not a regular file")
            data = stream.read(most_bytes + 1)
    except (OSError, ValueError) as cause:
        if getattr(cause, "errno", None) in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise error(f"{file}: not a regular file") from cause
        reason = getattr(cause, "strerror", None) or shown(str(cause))
        raise error(f"{file}: cannot be read ({reason})") from cause

    if len(data) > most_bytes:
        raise error(f"{file}: larger than {most_bytes:,} bytes")
    return data


def read_text(
    file: Path,
    *,
    most_bytes: int = MOST_BYTES,
    linked: bool = False,
    error: type[PermanentError] = ArtifactError,
) -> str:
    """Return a regular file's text; raises `error` as `read_bytes` does, and where not UTF-8."""
    data = read_bytes(file, most_bytes=most_bytes, linked=linked, error=error)
    return _decoded(data, str(file), error)


def read_json(
    file: Path,
    *,
    most_bytes: int = MOST_BYTES,
    linked: bool = False,
    error: type[PermanentError] = ArtifactError,
) -> Any:
    """Return the JSON value of a file; raises `error` for everything else (`parse_json`)."""
    data = read_bytes(file, most_bytes=most_bytes, linked=linked, error=error)
    return parse_json(data, str(file), most_bytes=most_bytes, error=error)


def parse_json(
    data: bytes | str,
    where: str,
    *,
    most_bytes: int = MOST_BYTES,
    error: type[PermanentError] = ArtifactError,
) -> Any:
    """Return the value of a JSON document (RFC 8259).

    Args:
        data: The document, UTF-8.
        where: The file or field, which messages begin with.
        most_bytes: A longer document is refused unread.
        error: What to raise.

    Raises:
        PermanentError: of the class `error`: not UTF-8, not JSON, a repeated key, half of a
            surrogate pair, nested deeper than 64, more than `most_bytes` / 16 values, NaN,
            infinity, or a number beyond a double.
    """
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    if len(raw) > most_bytes:
        raise error(f"{where}: larger than {most_bytes:,} bytes")

    text = _decoded(raw, where, error)
    most_values = most_bytes // _BYTES_PER_VALUE
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > most_values:
        raise error(f"{where}: more than {most_values:,} values")
    if _too_deep(raw):
        raise error(f"{where}: nested deeper than {MOST_DEPTH}")

    try:
        value = json.loads(
            text,
            object_pairs_hook=_without_repeated_keys,
            parse_constant=_no_constant,
            parse_int=_integer,
            parse_float=_float,
        )
        if _SURROGATE.search(raw):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise error(f"{where}: half of a surrogate pair, which is no text") from None
    except ValueError as cause:
        raise error(f"{where}: not valid JSON ({shown(str(cause))})") from cause

    return value


def read_object(
    file: Path,
    hint: type[T],
    *,
    most_bytes: int = MOST_BYTES,
    error: type[PermanentError] = ArtifactError,
) -> T:
    """Return the JSON document of a file as an object of the type `hint` (`as_type`)."""
    return as_type(
        read_json(file, most_bytes=most_bytes, error=error), hint, str(file), error=error
    )


def as_type(
    value: Any, hint: type[T], where: str, *, error: type[PermanentError] = ArtifactError
) -> T:
    """Return a JSON value as the type `hint`, a dataclass or any annotation.

    Args:
        value: What `parse_json` returned.
        hint: A dataclass, or an annotation such as dict[str, float]. Unknown fields are refused.
        where: The file or field, which messages begin with.
        error: What to raise.

    Raises:
        PermanentError: of the class `error`, naming the first fields that do not fit.
    """
    from pydantic import ValidationError

    adapter = _adapter(cast("Hashable", hint))

    try:
        # JSON has lists where Python has tuples: strict in everything else.
        return cast(T, adapter.validate_json(json.dumps(value), strict=True, extra="forbid"))
    except ValidationError as cause:
        if cause.error_count() > _MOST_PROBLEMS:
            raise error(f"{where}: {cause.error_count():,} values are not as expected") from None
        problems = [
            f"{'.'.join(shown(part, 60).strip(chr(39)) for part in found['loc']) or 'document'}:"
            f" {shown(found['msg']).strip(chr(39))}"
            for found in cause.errors(include_url=False, include_context=False, include_input=False)
        ]
        raise error(f"{where}: {first_of(problems, most=5, separator='; ')}") from None


def is_number(value: object) -> bool:
    """Return whether a JSON value is a number to calculate with; a bool is none.

    At most 1e100: no product of a few such numbers and of float32 values leaves a double.
    """
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and -_LARGEST_NUMBER <= value <= _LARGEST_NUMBER
    )


def _decoded(data: bytes, where: str, error: type[PermanentError]) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as cause:
        raise error(f"{where}: not UTF-8 (byte {cause.start})") from None


@functools.cache
def _adapter(hint: Any) -> "TypeAdapter[Any]":
    """Return pydantic's validator of a type, which takes milliseconds to build."""
    from pydantic import TypeAdapter

    return TypeAdapter(hint)


def _too_deep(data: bytes) -> bool:
    """Return whether brackets are nested deeper than allowed, without the recursion of a parser."""
    depth = 0

    for match in _BRACKETS_AND_TEXTS.finditer(data):
        token = match.group()
        if token in (b"[", b"{"):
            depth += 1
            if depth > MOST_DEPTH:
                return True
        elif token in (b"]", b"}"):
            depth -= 1

    return False


def _without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        repeated = collections.Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"key {shown(repeated)} twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _integer(text: str) -> int:
    # Python's own limit of 4300 digits would be met without a name.
    if math.isinf(float(text)):
        raise ValueError("an integer beyond a double")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number beyond a double")
    return value

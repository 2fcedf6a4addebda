"""Reading of documents: any bytes give a value of the expected type, or one typed error.

Everything that comes from a file or a store passes here before it is used: size before reading,
nesting and number of values after parsing, then the type by pydantic in strict mode. NaN, infinity
and integers beyond a double are refused, because arithmetic would meet them later without a name.
"""

import json
import math
import re
import stat
from pathlib import Path
from typing import Any, TypeVar, cast

from components.shared.contracts.errors import ArtifactError, PermanentError
from components.shared.contracts.listing import first_of, shown

T = TypeVar("T")

MOST_BYTES = 16 * 2**20
MOST_DEPTH = 64
MOST_VALUES = 1_000_000
_BRACKETS_AND_TEXTS = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[{\]}]', re.DOTALL)


def read_bytes(
    file: Path,
    *,
    most_bytes: int = MOST_BYTES,
    error: type[PermanentError] = ArtifactError,
) -> bytes:
    """Return a regular file's bytes.

    Raises `error` for a missing, linked, special or unreadable file, and for one of more than
    `most_bytes`.
    """
    try:
        found = file.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise error(f"{file}: not a regular file")
        with file.open("rb") as stream:
            data = stream.read(most_bytes + 1)
    except (OSError, ValueError) as cause:
        reason = getattr(cause, "strerror", None) or shown(str(cause))
        raise error(f"{file}: cannot be read ({reason})") from cause

    if len(data) > most_bytes:
        raise error(f"{file}: larger than {most_bytes:,} bytes")
    return data


def read_text(
    file: Path,
    *,
    most_bytes: int = MOST_BYTES,
    error: type[PermanentError] = ArtifactError,
) -> str:
    """Return a regular file's text; raises `error` as `read_bytes` does, and where not UTF-8."""
    return _decoded(read_bytes(file, most_bytes=most_bytes, error=error), str(file), error)


def read_json(
    file: Path,
    *,
    most_bytes: int = MOST_BYTES,
    error: type[PermanentError] = ArtifactError,
) -> Any:
    """Return the JSON value of a file; raises `error` for everything else (`parse_json`)."""
    data = read_bytes(file, most_bytes=most_bytes, error=error)
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
        PermanentError: of the class `error`: not UTF-8, not JSON, a repeated key, nested deeper
            than 64, more than a million values, NaN, infinity, or a number beyond a double.
    """
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    if len(raw) > most_bytes:
        raise error(f"{where}: larger than {most_bytes:,} bytes")

    text = _decoded(raw, where, error)
    if _depth(raw) > MOST_DEPTH:
        raise error(f"{where}: nested deeper than {MOST_DEPTH}")
    if raw.count(b",") + raw.count(b":") > 2 * MOST_VALUES:
        raise error(f"{where}: more than {MOST_VALUES:,} values")

    try:
        return json.loads(
            text,
            object_pairs_hook=_without_repeated_keys,
            parse_constant=_no_constant,
            parse_int=_integer,
            parse_float=_float,
        )
    except ValueError as cause:
        raise error(f"{where}: not valid JSON ({shown(str(cause))})") from cause


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
    from pydantic import TypeAdapter, ValidationError

    adapter: TypeAdapter[Any] = TypeAdapter(hint)
    try:
        # JSON has lists where Python has tuples: strict in everything else.
        return cast(T, adapter.validate_json(json.dumps(value), strict=True, extra="forbid"))
    except ValidationError as cause:
        problems = [
            f"{'.'.join(shown(part, 60).strip(chr(39)) for part in found['loc']) or 'document'}:"
            f" {shown(found['msg']).strip(chr(39))}"
            for found in cause.errors(include_url=False, include_context=False, include_input=False)
        ]
        raise error(f"{where}: {first_of(problems, most=5, separator='; ')}") from None


def _decoded(data: bytes, where: str, error: type[PermanentError]) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as cause:
        raise error(f"{where}: not UTF-8 (byte {cause.start})") from None


def _depth(data: bytes) -> int:
    """Return the depth of nesting, without the recursion of a parser."""
    depth = deepest = 0

    for match in _BRACKETS_AND_TEXTS.finditer(data):
        token = match.group()
        if token in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif token in b"]}":
            depth -= 1

    return deepest


def _without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {shown(repeated)} twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _integer(text: str) -> int:
    # A double has at most 309 digits; Python's own limit of 4300 would be met without a name.
    if len(text) > 309:
        raise ValueError("an integer beyond a double")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number beyond a double")
    return value

"""Values in messages: bounded, and without characters that act on a terminal."""

import json
import sys
from collections.abc import Iterable
from reprlib import Repr

from components.shared.contracts.redaction import redacted


def first_of(items: Iterable[object], *, most: int = 20, separator: str = ", ") -> str:
    """Return the first `most` items as text, and how many more there are.

    No message lists every file, row or id: one about all files of a data set would be a line of a
    hundred kilobytes.
    """
    listed = list(items)
    n_more = len(listed) - most
    return separator.join(map(str, listed[:most])) + (f" and {n_more} more" if n_more > 0 else "")


def shown(value: object, most: int = 200) -> str:
    """Return a value as Python writes it, cut in its middle to about `most` characters.

    Works on values whose whole repr would fill the memory. Credentials are redacted, control and
    other unprintable characters are escaped.
    """
    text = _BOUNDED.repr(value)
    if len(text) > most:
        text = f"{text[: most // 2]}...{text[-(most // 2) :]}"
    return printable(text)


def printable(text: str) -> str:
    """Return the text with control, format and unpaired surrogate characters escaped.

    What stands in a file name or a field must not move a terminal's cursor, forge a line of a log
    or fail in print.
    """
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def say(line: object) -> None:
    """Print one line to stdout, as every step does: `printable`, whatever names it contains.

    What the stream's encoding lacks is escaped too: a pod without a locale has ASCII.
    """
    text = printable(str(line)).encode(_encoding(), "backslashreplace").decode(_encoding())
    print(text, flush=True)  # noqa: T201 - the one print of the steps


def warn(line: object) -> None:
    """Print one line to stderr, for what may be part of a command whose answers are on stdout."""
    print(printable(f"warning: {line}"), file=sys.stderr, flush=True)  # noqa: T201


def say_json(document: object) -> None:
    """Print a document as one line of JSON, which any reader of JSON reads as the same value.

    Unprintable characters, unpaired surrogates of file names, and what the stream's encoding lacks
    are written as JSON's escapes. Raises ValueError for NaN and infinity, which JSON lacks.
    """
    text = json.dumps(document, ensure_ascii=False, allow_nan=False)
    print("".join(map(_in_json, text)), flush=True)  # noqa: T201


def _in_json(character: str) -> str:
    if character.isascii() or (character.isprintable() and _is_encodable(character)):
        return character if character != "\x7f" else "\\u007f"
    return json.dumps(character)[1:-1]


def _is_encodable(character: str) -> bool:
    try:
        character.encode(_encoding())
    except UnicodeEncodeError:
        return False
    return True


def _encoding() -> str:
    # Python has no standard output where it was closed or redirected to None; print is silent then.
    return getattr(sys.stdout, "encoding", None) or "utf-8"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


class _Bounded(Repr):
    """A repr whose cost does not grow with the value: `Repr` alone writes whole integers.

    Credentials are redacted before a text is cut, because half of one is not found any more.
    """

    def repr_int(self, x: int, level: int) -> str:  # noqa: ARG002 - the signature of Repr
        return f"an integer of {x.bit_length()} bits" if x.bit_length() > 256 else repr(x)

    def repr_str(self, x: str, level: int) -> str:
        if len(x) > 20 * self.maxstring:
            x = f"{x[: 10 * self.maxstring]} {x[-10 * self.maxstring :]}"
        return super().repr_str(redacted(x), level)

    def repr_instance(self, x: object, level: int) -> str:
        return redacted(super().repr_instance(x, level))


_BOUNDED = _Bounded()
_BOUNDED.maxstring = _BOUNDED.maxother = 200

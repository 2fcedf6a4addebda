"""Credentials are removed from everything that is printed or stored as a message.

Two ways find them. Values that the process knows (credentials in the environment, and what
`conceal` was told) are found verbatim, percent-encoded, and wrapped over lines. Credentials that
others wrote into a text are found by their form: user information and signatures of URLs, values
behind names such as `password=`, headers, and tokens with a prefix.
"""

import functools
import io
import json
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, TextIO
from urllib.parse import quote

from components.shared.contracts.environment import SECRET_VARIABLES

HIDDEN = "***"
# A shorter value is likely to be a word of the message; object stores take no shorter secrets.
_SHORTEST_SECRET = 8
_MOST_CONCEALED = 64

# What may stand between two characters of a wrapped value, also after `repr` or JSON.
_WRAP = r"(?:\s|\\[nrt])*+"
# A break of a line, also after `repr`.
_BREAK = r"(?:[ \t]*+(?:\r?\n|(?:\\r)?\\n)[ \t]*+|(?<=\\n)[ \t]++)"
# A value up to a separator; the next lines too, while each is one word, as a wrapped value leaves.
# Quantifiers are possessive (`++`) so that hostile text cannot make a search try every length.
_VALUE = (
    r"(?:(?!%26)[^\s&'\"<>;,])++"
    rf"(?:{_BREAK}[A-Za-z0-9%+/=_~.-]++(?=[ \t]*+(?:[\r\n&'\"]|\Z)))*+"
)
_EQUALS = r"(?:=|%(?:25){0,3}3D)"
# A path object has one slash of the two.
_SCHEME = r"(://|\b(?:s3|minio|gs|hf|https?):/)"
_ENCODED_SLASHES = r"(?:%(?:25){0,3}2F){2}"

# Forms that nothing but a credential has: a parameter with one is refused.
_CERTAIN = (
    # scheme://user:password@host
    (re.compile(rf"{_SCHEME}[^\s/@'\"<>]*@"), rf"\1{HIDDEN}@"),
    # ... with a slash or a line break in the password, or cut before the @: no port is like this
    (
        re.compile(
            rf"{_SCHEME}(?!\[)[^\s/@:'\"<>]*:(?!\d{{1,5}}(?!\w))"
            rf"[^\s'\"<>@]{{1,512}}+(?:{_BREAK}[^\s'\"<>@]{{1,512}}+){{0,4}}+@"
        ),
        rf"\1{HIDDEN}@",
    ),
    # the same, percent-encoded as a parameter of another URL
    (
        re.compile(
            rf"(?i)(%(?:25){{0,3}}3A{_ENCODED_SLASHES})"
            r"(?:(?!%(?:25){0,3}(?:2F|40))[^\s'\"<>&]){0,2000}%(?:25){0,3}40"
        ),
        rf"\1{HIDDEN}%40",
    ),
    (
        re.compile(
            rf"(?i)(X-(?:Amz|Goog)-(?:Signature|Credential|Security-Token)"
            rf"(?:{_EQUALS}|['\"]?:\s*)['\"]?){_VALUE}"
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b"), rf"\1{HIDDEN}"),
    # Access tokens of the Hugging Face Hub and of GitHub, JSON web tokens.
    (
        re.compile(rf"\b(hf_|gh[pousr]_)[A-Za-z0-9](?:{_BREAK}?+[A-Za-z0-9]){{15,}}+"),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"\beyJ[\w-]{8,}+\s*+\.\s*+[\w-]++\s*+\.\s*+[\w-]++"), HIDDEN),
)
# Forms that most credentials have, and other words now and then.
_LIKELY = (
    (
        re.compile(
            rf"{_SCHEME}(?!\[)[^\s/@:'\"<>]*:(?!\d{{1,5}}(?!\w))[^\s'\"<>@/]++",
        ),
        rf"\1{HIDDEN}",
    ),
    (
        re.compile(
            r"(?i)(?<![\w-])((?:[a-z0-9]+[_-])*"
            r"(?:token|password|passwd|secret[_-]?(?:access[_-]?)?key|client[_-]secret|api[_-]?key"
            r"|access[_-]?key(?:[_-]?id)?|awsaccesskeyid|signature|credential|sig|cookie"
            rf"|authservice_session){_EQUALS}['\"]?)(?![$<{{]|\.\.\.|\*\*\*){_VALUE}"
        ),
        rf"\1{HIDDEN}",
    ),
    (
        re.compile(
            r"(?i)\b((?:proxy-)?authorization|(?:set-)?cookie|x-auth-token)(['\"]?\s*+:\s*+(?-i:b?)['\"]?)"
            rf"(?:(?:bearer|basic|token|aws4-hmac-sha256)\s++)?{_VALUE}"
        ),
        rf"\1\2{HIDDEN}",
    ),
    (
        re.compile(rf"\b([Bb]earer|Basic)\s+(?=[\w~+/=.-]{{8}})(?=[^\s'\"]*[\d._~+/=-]){_VALUE}"),
        rf"\1 {HIDDEN}",
    ),
)

_concealed: dict[str, None] = {}


def conceal(*secrets: str | None) -> None:
    """Let `redacted` hide these values from now on, in this process."""
    for secret in secrets:
        if secret:
            _concealed.pop(secret, None)
            _concealed[secret] = None
    while len(_concealed) > _MOST_CONCEALED:
        del _concealed[next(iter(_concealed))]


def redacted(text: str) -> str:
    """Return the text with `***` in place of every credential in it.

    Takes time linear in the text. Redact before a text is cut or its lines are joined: half of a
    credential is not found.
    """
    for secret in _known():
        text = _finder(secret).sub(HIDDEN, text)
    for pattern, replacement in (*_CERTAIN, *_LIKELY):
        text = pattern.sub(replacement, text)
    return text


def carries_credential(value: Any) -> bool:
    """Whether a text, or a text anywhere in a JSON-like value, has the form of a credential.

    Words that only resemble one do not count, so that a parameter may be refused for it.
    """
    if isinstance(value, str):
        return any(pattern.search(value) for pattern, _ in _CERTAIN)
    if isinstance(value, dict):
        return any(carries_credential(part) for entry in value.items() for part in entry)
    return isinstance(value, list | tuple) and any(carries_credential(part) for part in value)


def redact_output() -> None:
    """Redact what this process prints from now on, a traceback too.

    What the encoding of the output lacks is escaped: a file's name must not end a process.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        if stream is not None and not isinstance(stream, RedactingStream):
            setattr(sys, name, RedactingStream(stream))


class RedactingStream:
    """A text stream that redacts each text before it is written; all else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text without its credentials; returns the length of the text as given."""
        self._stream.write(redacted(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write each line as `write` does."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _known() -> Iterator[str]:
    """Yield the credentials that this process knows and that are long enough to be looked for."""
    found = dict.fromkeys(os.environ.get(name, "") for name in SECRET_VARIABLES)
    for secret in {**_concealed, **found}:
        if len("".join(secret.split())) >= _SHORTEST_SECRET:
            yield secret


@functools.lru_cache(maxsize=2 * _MOST_CONCEALED)
def _finder(secret: str) -> re.Pattern[str]:
    """Return the pattern of a value: as it is, percent-encoded or escaped, in one line or many."""
    plain = "".join(secret.split())
    escaped = json.dumps(plain)[1:-1]
    encoded = {quote(plain), quote(plain, safe=""), escaped, repr(plain)[1:-1]}
    forms = sorted({plain, *encoded}, key=len, reverse=True)
    return re.compile("|".join(_wrapped(form) for form in forms))


def _wrapped(form: str) -> str:
    # Hexadecimal digits of percent-encoding come in either case.
    pieces = re.findall(r"%[0-9A-F]{2}|.", form, re.DOTALL)
    return _WRAP.join(f"(?i:{p})" if len(p) == 3 else re.escape(p) for p in pieces)

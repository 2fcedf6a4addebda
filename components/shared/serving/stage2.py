"""Stage 2 of a cascade: who answers the images that the bundle's policy defers.

A service is asked over HTTP, one POST for each image; its answer is a name, which is compared with
those of the task, and never code. A function of the user's own Python answers too. Whatever fails,
the image stays deferred, with the reason.
"""

import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from components.shared.contracts.documents import parse_json
from components.shared.contracts.errors import ArtifactError, ConfigError, one_line
from components.shared.contracts.listing import first_of, shown
from components.shared.contracts.redaction import carries_credential, redacted

TIMEOUT_SECONDS = 30.0  # for a connection, and for an answer: a large model needs some
_N_RETRIES = 2
_BACKOFF_SECONDS = 0.5  # doubled before each further attempt
_RETRIED_STATUS = (408, 425, 429, 500, 502, 503, 504)
_N_AT_ONCE = 4  # requests to a service; a function may not be called by two threads
_MOST_BYTES = 1 << 16  # of an answer, which is a line of JSON
_URL = re.compile(r"https?://[^\s/?#@\\]+(/[^\s#@\\]*)?(\?[^\s#@\\]*)?")
_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


class _NoAnswerError(Exception):
    """Stage 2 does not answer this image; the message says why."""


@dataclass(frozen=True)
class Stage2Answer:
    """What stage 2 says of one image: a decision, or why there is none."""

    decision: str | None = None
    error: str = ""


class Stage2:
    """Who answers: `ask` has the bytes of an image, and returns a name or a mapping with one."""

    def __init__(self, ask: Callable[[bytes], Any], names: Sequence[str], n_at_once: int) -> None:
        """Take a function, and the names of the outcomes that it may answer."""
        self._ask, self._names = ask, tuple(names)
        self.n_at_once = n_at_once

    @classmethod
    def of(cls, target: str, names: Sequence[str]) -> "Stage2":
        """Return the service at an http(s) URL, or the function `module:function`.

        Raises:
            ConfigError: it is neither; the URL carries a credential; there is no such function.
        """
        if target.startswith(("http://", "https://")):
            return cls(_service(target), names, _N_AT_ONCE)
        return cls(_function(target), names, 1)

    def answer(self, image: bytes) -> Stage2Answer:
        """Ask about one image, as it was encoded; every failure is an answer without a decision."""
        try:
            found = self._ask(image)
            decision = found.get("decision") if isinstance(found, dict) else found
            if decision not in self._names:
                raise _NoAnswerError(
                    f"answered {shown(decision, 80)}, expected one of {first_of(self._names)}"
                )
        except _NoAnswerError as problem:
            return Stage2Answer(error=one_line(problem))
        except Exception as problem:  # a function of the user's may raise anything
            return Stage2Answer(error=f"{type(problem).__name__}: {one_line(problem)}")
        return Stage2Answer(str(decision))


def _service(url: str) -> Callable[[bytes], Any]:
    """Return a function that sends an image to a URL and returns its JSON."""
    if carries_credential(url):
        raise ConfigError(f"stage2={redacted(url)!r} carries a credential; use a function instead")
    if not _URL.fullmatch(url):
        raise ConfigError(f"stage2={redacted(url)!r} must be http://host/path or https://...")

    import certifi
    import urllib3

    host = urlsplit(url).netloc
    pool = urllib3.PoolManager(
        maxsize=_N_AT_ONCE, cert_reqs="CERT_REQUIRED", ca_certs=certifi.where()
    )
    retries = urllib3.Retry(
        total=_N_RETRIES,
        status_forcelist=_RETRIED_STATUS,
        allowed_methods=None,
        backoff_factor=_BACKOFF_SECONDS,
        redirect=False,
        raise_on_redirect=False,
        raise_on_status=False,
        respect_retry_after_header=False,  # it may be hours
    )

    def ask(image: bytes) -> Any:
        try:
            answer = pool.request(
                "POST",
                url,
                body=image,
                headers={"Content-Type": "application/octet-stream", "Accept": "application/json"},
                retries=retries,
                redirect=False,
                timeout=urllib3.Timeout(connect=TIMEOUT_SECONDS, read=TIMEOUT_SECONDS),
                preload_content=False,
            )
            data = answer.read(_MOST_BYTES + 1)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise _NoAnswerError(
                f"{host} did not answer ({type(reason).__name__}), {_N_RETRIES + 1} attempts"
            ) from error

        if len(data) > _MOST_BYTES:
            answer.close()
            raise _NoAnswerError(f"{host} answered more than {_MOST_BYTES} bytes")
        answer.release_conn()
        if answer.status != 200:
            raise _NoAnswerError(f"{host} answered HTTP {answer.status}")
        try:
            return parse_json(data, host, most_bytes=_MOST_BYTES)
        except ArtifactError as error:
            raise _NoAnswerError(f"{host} answered no JSON: {shown(data, 80)}") from error

    return ask


def _function(target: str) -> Callable[[bytes], Any]:
    """Return the function that `module:function` names, in the user's own Python."""
    if not _FUNCTION.fullmatch(target):
        raise ConfigError(
            f"stage2={shown(redacted(target))} must be an http(s) URL, or module:function"
        )
    module, _, name = target.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"stage2={target!r}: {one_line(error)}") from error
    if not callable(found):
        raise ConfigError(f"stage2={target!r} is a {type(found).__name__}, not a function")

    function: Callable[[bytes], Any] = found
    return function

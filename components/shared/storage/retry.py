"""HTTP requests that are repeated until they succeed or a deadline passes.

Every answer is read completely before it is returned, so that a cut or stalled body is retried like
any other failure. The caller therefore limits the size of bodies (`client.PART_BYTES`). urllib3's
own retries stop at the headers and have no deadline.
"""

import contextlib
import io
import random
import re
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

import certifi
import urllib3
from urllib3.exceptions import HTTPError

from components.shared.contracts.environment import Variable
from components.shared.storage.errors import StoreRefusedError, StoreUnavailableError

DEADLINE_SECONDS = 60.0
_ATTEMPT_FRACTION = 1 / 3  # of the deadline: a stalled attempt must leave time for others
_BACKOFF_SECONDS = 0.1
_LONGEST_BACKOFF_SECONDS = 5.0
_RETRIED_STATUS = frozenset({408, 429, 500, 502, 503, 504})
_CHUNK_BYTES = 256 * 1024
_ERROR_CODE = re.compile(rb"<Code>([A-Za-z0-9]{1,64})</Code>")
# Not the `random` module's own generator: training saves and restores that one, a retry must not
# advance it.
_JITTER = random.SystemRandom()


class _Budget(threading.local):
    """Per thread: until when the current operation may try, and what happened so far."""

    expires = 0.0
    attempts = 0


class RetryingPool(urllib3.PoolManager):
    """A connection pool that repeats requests until a deadline.

    Waits between them grow exponentially, with full jitter.
    The deadline counts from the operation's start or its last success, so that a long upload goes
    on while it progresses and a dead store is noticed in time.
    """

    def __init__(
        self, *, ca_file: str | None = None, deadline_seconds: float = DEADLINE_SECONDS
    ) -> None:
        super().__init__(
            maxsize=8, retries=False, cert_reqs="CERT_REQUIRED", ca_certs=ca_file or certifi.where()
        )
        self.deadline_seconds = deadline_seconds
        self._budget = _Budget()

    @property
    def attempts(self) -> int:
        """Number of times that this thread's last request was sent."""
        return self._budget.attempts

    @contextlib.contextmanager
    def operation(self) -> Iterator[None]:
        """Start the deadline of an operation that may consist of several requests."""
        self._budget.expires = time.monotonic() + self.deadline_seconds
        yield

    def urlopen(self, method: str, url: str, **kw: Any) -> urllib3.BaseHTTPResponse:  # type: ignore[override]
        """Send the request until the answer is not a server error.

        Raises StoreUnavailableError at the deadline, StoreRefusedError where TLS fails.
        Redirects are not followed: a signed request is for one host.
        """
        budget, failure = self._budget, "no attempt was left"

        budget.attempts = 0
        while (remaining := budget.expires - time.monotonic()) > 0:
            budget.attempts += 1
            try:
                response = self._attempt(method, url, min(remaining, self._attempt_seconds), kw)
            except (HTTPError, OSError) as error:
                failure = _reason(error)
                _refuse_tls(error)
            else:
                if response.status not in _RETRIED_STATUS:
                    budget.expires = time.monotonic() + self.deadline_seconds
                    return response

                failure = _describe(response)

            time.sleep(min(_pause(budget.attempts), max(0.0, budget.expires - time.monotonic())))

        waited = (
            f"{self.deadline_seconds:g} s without success, {budget.attempts} attempt(s) of the last"
            " request"
        )
        raise StoreUnavailableError(f"{waited}, last: {failure}")

    @property
    def _attempt_seconds(self) -> float:
        return self.deadline_seconds * _ATTEMPT_FRACTION

    def _attempt(
        self, method: str, url: str, seconds: float, kw: dict[str, Any]
    ) -> urllib3.BaseHTTPResponse:
        ends = time.monotonic() + seconds
        # While a body is sent, the socket has the connect timeout.
        options = {
            **kw,
            "preload_content": False,
            "timeout": urllib3.Timeout(connect=seconds, read=seconds),
        }

        response = super().urlopen(method, url, redirect=False, **options)

        try:
            body = _body(response, ends)
        except BaseException:
            response.close()
            raise

        response.release_conn()

        return urllib3.HTTPResponse(
            body=io.BytesIO(body),
            headers=response.headers,
            status=response.status,
            reason=response.reason,
            preload_content=bool(kw.get("preload_content", True)),
            request_method=method,
        )


def _body(response: Any, ends: float) -> bytes:
    """Return the whole answer, undecoded; TimeoutError where it is too slow."""
    chunks = []
    while chunk := response.read1(_CHUNK_BYTES, decode_content=False):
        chunks.append(chunk)
        if time.monotonic() > ends:
            raise TimeoutError("body too slow")
    return b"".join(chunks)


def _pause(attempts: int) -> float:
    """Return the seconds before the next attempt: exponential with full jitter.

    Jitter keeps many clients from returning together.
    """
    return _JITTER.uniform(
        0, min(_LONGEST_BACKOFF_SECONDS, _BACKOFF_SECONDS * 2.0 ** min(attempts, 16))
    )


def _describe(response: Any) -> str:
    code = _ERROR_CODE.search(response.data or b"")
    return f"HTTP {response.status}" + (f" {code.group(1).decode()}" if code else "")


def _refuse_tls(error: Exception) -> None:
    """Raise StoreRefusedError for an unverifiable certificate or missing TLS, which stay so."""
    inner = _innermost(error)
    if isinstance(inner, ssl.SSLCertVerificationError):
        raise StoreRefusedError(
            f"certificate refused ({inner.verify_message}); name its authority in"
            f" {Variable.S3_CA_FILE}"
        ) from None
    if isinstance(inner, ssl.SSLError) and inner.reason in (
        "WRONG_VERSION_NUMBER",
        "RECORD_LAYER_FAILURE",
    ):
        raise StoreRefusedError(
            f"no TLS spoken there; set {Variable.S3_SECURE}=false or the right port"
        ) from None


def _reason(error: Exception) -> str:
    """Return class and innermost reason; never the text, which may hold a presigned URL."""
    inner = _innermost(error)
    text = f" {inner.strerror}" if isinstance(inner, OSError) and inner.strerror else ""
    return f"{type(error).__name__}{text}"


def _innermost(error: BaseException) -> BaseException:
    while inner := error.__cause__ or error.__context__:
        error = inner
    return error

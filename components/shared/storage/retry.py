"""HTTP requests that are repeated until they succeed or a deadline passes.

Every answer is read completely before it is returned, so that a cut or stalled body is retried like
any other failure. No body is longer than MOST_BODY_BYTES, and an attempt ends in time however
slowly an answer comes. urllib3's own retries stop at the headers and have no deadline.
"""

import contextlib
import errno
import io
import random
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from enum import Enum
from typing import Any

import certifi
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from components.shared.contracts.environment import Variable
from components.shared.storage.errors import StoreRefusedError, StoreUnavailableError

DEADLINE_SECONDS = 60.0
# A page of a listing has 1000 keys of at most 1024 bytes, three times as long if percent-encoded.
MOST_BODY_BYTES = 8 * 1024 * 1024
# Answers between two steps of an operation: a multipart upload begins with two, a redirect to
# another region adds two.
_MOST_ANSWERS = 8
_ATTEMPT_FRACTION = 1 / 3  # of the deadline: a stalled attempt must leave time for others
_BACKOFF_SECONDS = 0.1
_LONGEST_BACKOFF_SECONDS = 5.0
_RETRIED_STATUS = frozenset({408, 429, 500, 502, 503, 504})
_CHUNK_BYTES = 256 * 1024
_ERROR_CODE = re.compile(rb"<Code>([A-Za-z0-9]{1,64})</Code>")
# Not the `random` module's own generator: training saves and restores that one, a retry must not
# advance it.
_JITTER = random.SystemRandom()


class Answers(Enum):
    """What the body of a successful answer is: anything else comes from no object store."""

    # Bytes of an object, which the caller compares with the range that it asked for.
    OBJECT = re.compile(rb"")
    NOTHING = re.compile(rb"\s*\Z")
    LISTING = re.compile(rb"\s*(<\?xml[^>]{,200}\?>)?\s*<ListBucketResult[\s>]")
    # Of a bucket; versioning that was never set is an empty element.
    SETTINGS = re.compile(
        rb"\s*(<\?xml[^>]{,200}\?>)?\s*<(Lifecycle|Versioning)Configuration[\s/>]"
    )
    UPLOAD = re.compile(
        rb"\s*(<\?xml[^>]{,200}\?>)?\s*(\Z|<(Initiate|Complete)MultipartUploadResult[\s>])"
    )


class _Budget(threading.local):
    """Per thread: until when the current operation may try, and what happened so far."""

    answers = Answers.OBJECT
    expires = 0.0
    n_answers = 0
    attempts = 0
    failure = "no attempt was left"
    # The connection in use, shared with the timer of `_cut_off`.
    connections: list[HTTPConnection] = []  # noqa: RUF012 - replaced for every attempt


_budget = _Budget()


class _Watched:
    """A connection that says which one it is, so that another thread can end it in time.

    A timeout of the socket counts from the last byte: a slow sender never meets it.
    """

    def connect(self) -> None:
        _budget.connections[:] = [self]  # type: ignore[list-item]
        super().connect()  # type: ignore[misc]

    def request(self, *arguments: Any, **options: Any) -> None:
        _budget.connections[:] = [self]  # type: ignore[list-item]
        super().request(*arguments, **options)  # type: ignore[misc]


class _WatchedHTTP(_Watched, HTTPConnection):
    pass


class _WatchedHTTPS(_Watched, HTTPSConnection):
    pass


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _WatchedHTTP


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _WatchedHTTPS


class RetryingPool(urllib3.PoolManager):
    """A connection pool that repeats requests until a deadline.

    Waits between them grow exponentially, with full jitter.
    The deadline counts from the operation's start or its last step. Only the caller knows a step
    (`stepped`): bytes or names that were new. So a long transfer goes on while it gets forward, and
    neither a dead store nor one that answers without end holds it.
    """

    def __init__(
        self, *, ca_file: str | None = None, deadline_seconds: float = DEADLINE_SECONDS
    ) -> None:
        super().__init__(
            maxsize=8, retries=False, cert_reqs="CERT_REQUIRED", ca_certs=ca_file or certifi.where()
        )
        self.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}
        self.deadline_seconds = deadline_seconds

    @property
    def attempts(self) -> int:
        """Number of times that this thread's last request was sent."""
        return _budget.attempts

    @contextlib.contextmanager
    def operation(self, answers: Answers = Answers.NOTHING) -> Iterator[None]:
        """Start the deadline of an operation that may consist of several requests.

        Args:
            answers: What the bodies of successful answers are; others are refused.
        """
        before = _budget.answers, _budget.expires, _budget.n_answers
        _budget.answers, _budget.failure = answers, _Budget.failure
        self.stepped()
        try:
            yield
        finally:
            _budget.answers, _budget.expires, _budget.n_answers = before

    def stepped(self) -> None:
        """Start the deadline again: the operation got forward."""
        _budget.expires, _budget.n_answers = time.monotonic() + self.deadline_seconds, 0

    def urlopen(self, method: str, url: str, **kw: Any) -> urllib3.BaseHTTPResponse:  # type: ignore[override]
        """Send the request until the answer is not a server error.

        Raises StoreUnavailableError at the deadline, StoreRefusedError where TLS fails, where an
        answer is none of an object store, or where answers bring nothing new.
        Redirects are not followed: a signed request is for one host.
        """
        # A request after the deadline clears up: what failed before it is the reason to show.
        failure = _budget.failure
        if _budget.n_answers == _MOST_ANSWERS:
            raise StoreRefusedError(f"{_MOST_ANSWERS} answers one after the other had nothing new")

        _budget.attempts = 0
        while (remaining := _budget.expires - time.monotonic()) > 0:
            _budget.attempts += 1
            try:
                response = self._attempt(method, url, min(remaining, self._attempt_seconds), kw)
            except (HTTPError, OSError) as error:
                failure = _reason(error)
                _refuse_tls(error)
            else:
                if response.status not in _RETRIED_STATUS:
                    _budget.n_answers += 1
                    return response

                failure = _describe(response)

            _budget.failure = failure
            left = _budget.expires - time.monotonic()
            time.sleep(min(_pause(_budget.attempts), max(0.0, left)))

        waited = (
            f"{self.deadline_seconds:g} s without success, {_budget.attempts} attempt(s) of the"
            " last request"
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

        with _cut_off(seconds):
            response = super().urlopen(method, url, redirect=False, **options)
            try:
                body = _body(response, ends)
                _refuse_other_answers(response, body)
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


@contextlib.contextmanager
def _cut_off(seconds: float) -> Iterator[None]:
    """End the connection of this thread's request after so many seconds."""
    connections: list[HTTPConnection] = []
    _budget.connections = connections

    def end() -> None:
        for connection in connections:
            if connection.sock is not None:
                with contextlib.suppress(OSError):
                    # The plain socket's method: that of TLS drops its state under the reader.
                    socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _body(response: Any, ends: float) -> bytes:
    """Return the whole answer, undecoded.

    Raises TimeoutError where it is too slow, StoreRefusedError where it is too long.
    """
    chunks, size = [], 0
    while chunk := response.read1(_CHUNK_BYTES, decode_content=False):
        chunks.append(chunk)
        size += len(chunk)
        if size > MOST_BODY_BYTES:
            raise StoreRefusedError(
                f"sends more than the {MOST_BODY_BYTES >> 20} MiB that were asked for"
            )
        if time.monotonic() > ends:
            break

    if time.monotonic() > ends:  # also where the connection was cut off, which ends a body too
        raise TimeoutError("answer too slow")
    return b"".join(chunks)


def _refuse_other_answers(response: Any, body: bytes) -> None:
    """Raise StoreRefusedError for a document that an object store does not send.

    An error of S3 in an answer that began as a success is an OSError, which is tried again. A login
    page in place of a listing would be an empty folder, in place of an answer to an upload a
    success. A document type, which S3 has nowhere, may declare entities that fill the memory.
    """
    if response.status in _RETRIED_STATUS:
        return

    success = response.status < 300
    of_an_object = success and _budget.answers is Answers.OBJECT
    if not of_an_object and (b"<!DOCTYPE" in body or b"<!ENTITY" in body):
        raise StoreRefusedError(
            f"HTTP {response.status} with a page: not S3's; check the endpoint, and whether a"
            " login or a proxy is before it"
        )

    if success and not of_an_object and (inside := _ERROR_CODE.search(body)):
        # S3 begins its answer to a long request before it knows how that ends.
        raise OSError(errno.EIO, f"HTTP {response.status} with the error {inside[1].decode()}")
    if success and not _budget.answers.value.match(body):
        kind = response.headers.get("Content-Type", "no Content-Type")
        raise StoreRefusedError(
            f"HTTP {response.status} with {kind}, not S3's answer; check the endpoint, and whether"
            " a login or a proxy is before it"
        )


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

"""Bodies of requests: read whole, with limits of size and time, before anything looks at them."""

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from components.shared.serving.server import metrics
from components.shared.serving.server.deployment import Deployment
from components.shared.serving.server.refusals import Reason, RefusedError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_HELD_TO_DISCARD = 20  # times the largest body, read without being kept so that a client hears why


class _GoneError(Exception):
    """The client has closed the connection."""


class Bodies:
    """An ASGI application around another one, which sees bodies that are complete and small."""

    def __init__(self, app: App, deployment: Deployment) -> None:
        """Take the application, and the deployment with its limits."""
        self._app, self._deployment = app, deployment
        self._limits, self._admission = deployment.limits, deployment.admission

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer a request, or refuse its body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        answered = _Answered(scope, send, self._deployment)
        held = bytearray()
        try:
            await self._read(scope, receive, held)
            await self._app(scope, _whole(bytes(held), receive), answered.send)
        except _GoneError:
            return
        except RefusedError as error:
            await refuse(error, answered.send, close=True)
        finally:
            self._admission.let_go(len(held))
            answered.count()

    async def _read(
        self, scope: MutableMapping[str, Any], receive: Receive, held: bytearray
    ) -> None:
        """Read the body into `held`, whose length is counted as held.

        Raises RefusedError where it is too large or too slow, _GoneError.
        """
        headers = dict(scope["headers"])
        length = int(headers.get(b"content-length", b"0"))  # h11 has checked it
        most = self._limits.body_bytes
        too_large = RefusedError(
            Reason.TOO_LARGE, f"the body has more than {most} bytes, the limit of this server"
        )
        if length > most and headers.get(b"expect", b"").lower() == b"100-continue":
            raise too_large

        n_bytes = 0
        try:
            async with asyncio.timeout(self._limits.client_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _GoneError
                    chunk = message.get("body", b"")
                    n_bytes += len(chunk)
                    if max(n_bytes, length) <= most:
                        self._admission.hold(len(chunk))
                        held += chunk
                    if not message.get("more_body") or n_bytes > _HELD_TO_DISCARD * most:
                        break
        except TimeoutError:
            raise RefusedError(
                Reason.SLOW_CLIENT,
                f"{n_bytes} bytes in {self._limits.client_seconds:g} s, which a body may take",
            ) from None
        if max(n_bytes, length) > most:
            raise too_large


class _Answered:
    """What was answered to a request, for the metrics."""

    def __init__(self, scope: MutableMapping[str, Any], send: Send, deployment: Deployment) -> None:
        self._endpoint = endpoint_of(scope["method"], scope["path"])
        self._send, self._deployment = send, deployment
        self._status: int | None = None
        self._started = time.monotonic()

    async def send(self, message: Message) -> None:
        """Pass a message on; a server that ends asks for no more requests of the connection."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            if not self._deployment.is_accepting:
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
        await self._send(message)

    def count(self) -> None:
        """Count the request, unless it is a probe or a scrape."""
        if not self._endpoint or self._status is None:
            return
        metrics.REQUESTS.labels(self._endpoint, str(self._status)).inc()
        if self._status == 200:
            metrics.LATENCY.labels(self._endpoint).observe(time.monotonic() - self._started)


def endpoint_of(method: str, path: str) -> str:
    """Return what the metrics call the endpoint of a request; empty for what they do not count."""
    if path == "/predict":
        return "predict"
    if path.startswith("/v2/models/") and path.endswith("/infer"):
        return "infer"
    return "" if method == "GET" else "other"


def _whole(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that hands the whole body over, and then waits for the client's end."""
    is_read = False

    async def from_memory() -> Message:
        nonlocal is_read
        if is_read:
            return await receive()
        is_read = True
        return {"type": "http.request", "body": body, "more_body": False}

    return from_memory


async def refuse(error: RefusedError, send: Send, *, close: bool = False) -> None:
    """Send the refusal as JSON.

    Args:
        error: why.
        send: of ASGI.
        close: whether the connection ends, because its body was not read.
    """
    metrics.REJECTED.labels(error.reason.label).inc()
    headers = [(b"content-type", b"application/json")]
    if error.retry_after is not None:
        headers.append((b"retry-after", str(error.retry_after).encode()))
    if close:
        headers.append((b"connection", b"close"))

    content = json.dumps({"error": str(error)}).encode() + b"\n"
    headers.append((b"content-length", str(len(content)).encode()))
    with contextlib.suppress(OSError):
        await send(
            {"type": "http.response.start", "status": error.reason.status, "headers": headers}
        )
        await send({"type": "http.response.body", "body": content})

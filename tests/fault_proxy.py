"""An HTTP proxy in front of a store that breaks calls on purpose."""

import contextlib
import http.client
import random
import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.served import served

FAULTS = ("error500", "slow_down", "reset_before", "reset_after", "stall", "partial")
_SLOW_DOWN = (
    b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Reduce your request'
    b" rate</Message></Error>"
)
_CONDITIONS = ("if-match", "if-none-match")


class FaultProxy(ThreadingHTTPServer):
    """Forwards to `upstream`; a share `rate` of the calls meets one of `faults`.

    `counts` says how often which.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self,
        upstream: str,
        *,
        rate: float,
        faults: tuple[str, ...],
        stall_seconds: float,
        seed: int,
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream, self.rate, self.faults, self.stall_seconds = (
            upstream,
            rate,
            faults,
            stall_seconds,
        )
        self.ignore_conditions = False
        self.counts: Counter[str] = Counter()
        self.lines: list[str] = []
        self.stopping = threading.Event()
        self._random, self._lock = random.Random(seed), threading.Lock()

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    @property
    def n_faults(self) -> int:
        return sum(self.counts[fault] for fault in FAULTS)

    def draw(self, line: str) -> str:
        """The fault of the next call, or "none"."""
        with self._lock:
            fault = (
                self._random.choice(self.faults) if self._random.random() < self.rate else "none"
            )
            self.counts["calls"] += 1
            self.counts[fault] += 1
            self.lines.append(line)
            return fault

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away in the middle of an answer is what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultProxy

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.server.draw(self.requestline)
        if fault == "error500":
            self._answer(500, [], b"")
        elif fault == "slow_down":
            self._answer(503, [("Content-Type", "application/xml")], _SLOW_DOWN)
        elif fault == "html":
            self._answer(403, [("Content-Type", "text/html")], b"<html>a login page</html>")
        elif fault == "reset_before":
            self._reset()
        else:
            status, headers, answer = self._forward(body)
            if fault == "reset_after":
                self._reset()
            else:
                self._answer(status, headers, answer, fault)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _handle  # noqa: N815

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.server.upstream, timeout=30)
        headers = dict(self.headers.items())
        if self.server.ignore_conditions and self.command == "PUT":
            headers = {
                name: value for name, value in headers.items() if name.lower() not in _CONDITIONS
            }
        try:
            connection.request(self.command, self.path, body or None, headers)
            response = connection.getresponse()
            kept = [
                (n, v)
                for n, v in response.getheaders()
                if n.lower() not in ("transfer-encoding", "connection")
            ]
            return response.status, kept, response.read()
        finally:
            connection.close()

    def _answer(
        self, status: int, headers: list[tuple[str, str]], body: bytes, fault: str = "none"
    ) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() != "content-length":
                self.send_header(name, value)
        length = (
            {n.lower(): v for n, v in headers}.get("content-length")
            if self.command == "HEAD"
            else None
        )
        self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        half = len(body) // 2
        self.wfile.write(body[:half])
        self.wfile.flush()
        if fault == "partial" and body:
            self._reset()
            return
        if fault == "stall":
            self.server.stopping.wait(self.server.stall_seconds)
        self.wfile.write(body[half:])

    def _reset(self) -> None:
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@contextlib.contextmanager
def fault_proxy(
    upstream: str,
    *,
    rate: float = 0.0,
    faults: tuple[str, ...] = FAULTS,
    stall_seconds: float = 0.2,
    seed: int = 0,
    tls: ssl.SSLContext | None = None,
) -> Iterator[FaultProxy]:
    """Run a FaultProxy, speaking TLS where a context is given."""
    with FaultProxy(
        upstream, rate=rate, faults=faults, stall_seconds=stall_seconds, seed=seed
    ) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        with served(server, server.stopping, 0.05):
            yield server

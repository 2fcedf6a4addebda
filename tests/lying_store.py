"""A server that answers like an object store which is broken, attacked, or no object store at all.

It stands for what may be between this client and a store, or in its place: a login page, a caching
or rewriting proxy, a store that ignores conditions, an attacker on the network. Well-behaved
answers are recorded from the embedded server in `test_client.py`; nothing here is a claim about a
real store.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.served import served

Answer = Callable[["Call"], None]


class Call(BaseHTTPRequestHandler):
    """One request; `server.answer` writes the reply to it."""

    protocol_version = "HTTP/1.1"
    server: "LyingStore"

    def handle_one_request(self) -> None:
        """A client that went away is what these tests are about."""
        with contextlib.suppress(OSError):
            super().handle_one_request()

    def _handle(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.n_calls += 1
        self.server.answer(self)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _handle  # noqa: N815

    @property
    def offset(self) -> int:
        """First byte of the range that is asked for."""
        return int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Answer; `_` in the names of headers stands for `-`."""
        self.send_response_only(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def drip(self, piece: bytes, pause: float, *, headers: bool = False) -> None:
        """Send `piece` again and again, as a body without length or as headers, until cut off."""
        if not headers:
            self.send_response_only(206)
            self.send_header("ETag", '"a"')
            self.send_header("Content-Range", "bytes 0-8388607/8388608")
            self.send_header("Connection", "close")
            self.end_headers()
        else:
            self.wfile.write(b"HTTP/1.1 206 Partial Content\r\nX-Long: ")
        self.close_connection = True
        while not self.server.stopping.wait(pause):
            self.wfile.write(piece)
            self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


class LyingStore(ThreadingHTTPServer):
    """Answers every request by `answer`."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, answer: Answer) -> None:
        super().__init__(("127.0.0.1", 0), Call)
        self.answer, self.n_calls, self.stopping = answer, 0, threading.Event()

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


@contextlib.contextmanager
def lying_store(answer: Answer) -> Iterator[LyingStore]:
    """Run a LyingStore."""
    with LyingStore(answer) as server, served(server, server.stopping, 0.02):
        yield server

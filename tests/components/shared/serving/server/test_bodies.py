"""Bodies over a raw socket: slow, endless and broken ones."""

import contextlib
import socket
import time

import pytest

from components.shared.serving.server.bodies import endpoint_of
from tests.serving_server import Running, photo, running

HEAD = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\n"


def _exchange(server: Running, *parts: bytes, pause: float = 0.0) -> bytes:
    """Send the parts with pauses between them, and return all that comes until the end."""
    with socket.create_connection(("127.0.0.1", server.ports["http"]), timeout=20) as connection:
        for part in parts:
            with contextlib.suppress(ConnectionError):
                connection.sendall(part)
            time.sleep(pause)
        received = b""
        with contextlib.suppress(ConnectionError):
            while chunk := connection.recv(65536):
                received += chunk
        return received


def test_a_body_in_chunks_is_read_whole(server: Running) -> None:
    image = photo(200)
    chunks = [b"%x\r\n%b\r\n" % (len(part), part) for part in (image[:10], image[10:])]
    answer = _exchange(
        server,
        HEAD + b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n",
        *chunks,
        b"0\r\n\r\n",
    )
    assert b"200 OK" in answer
    assert b"Roadwork" in answer


def test_a_body_that_takes_too_long_is_refused(server: Running) -> None:
    started = time.monotonic()
    answer = _exchange(server, HEAD + b"content-length: 100\r\n\r\n", b"x")
    assert b"408" in answer
    assert b"1 bytes in 1 s, which a body may take" in answer
    assert time.monotonic() - started < 5


def test_a_body_that_is_too_large_and_chunked_is_refused(server: Running) -> None:
    part = b"%x\r\n%b\r\n" % (100_000, bytes(100_000))
    answer = _exchange(
        server, HEAD + b"transfer-encoding: chunked\r\n\r\n", *[part] * 3, b"0\r\n\r\n"
    )
    assert b"413" in answer


def test_a_client_that_asks_first_is_refused_before_it_sends(server: Running) -> None:
    answer = _exchange(server, HEAD + b"expect: 100-continue\r\ncontent-length: 100000000\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        HEAD + b"content-length: -1\r\n\r\n",
        HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST /predict HTTP/1.1\r\nx: " + b"a" * 200_000 + b"\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(server: Running, sent: bytes) -> None:
    answer = _exchange(server, sent)
    assert answer == b"" or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 408"))
    assert b"200 OK" in _exchange(
        server, HEAD + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(photo(1)), photo(1)
    )


def test_a_client_that_goes_away_leaves_nothing_behind(server: Running) -> None:
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", server.ports["http"])) as connection:
            connection.sendall(HEAD + b"content-length: 100\r\n\r\nxyz")
    time.sleep(0.3)
    assert server.deployment.admission.n_bytes == 0


def test_no_more_bytes_are_held_than_stated() -> None:
    with running(body_bytes=10_000) as server:
        server.deployment.admission.n_bytes = 16 * 10_000
        answer = _exchange(server, HEAD + b"content-length: 4\r\n\r\nabcd")
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 1" in answer
        server.deployment.admission.n_bytes = 0


def test_endpoints_are_few_whatever_is_asked() -> None:
    assert endpoint_of("POST", "/predict") == "predict"
    assert endpoint_of("POST", "/v2/models/any/infer") == "infer"
    assert endpoint_of("POST", "/v2/anything") == "other"
    assert endpoint_of("GET", "/metrics") == ""

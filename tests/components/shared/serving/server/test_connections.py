"""Connections that send no request, or only a part of its headers, are closed."""

import contextlib
import socket
import time

import pytest

from tests.serving_server import Running, photo


@pytest.mark.parametrize("sent", [b"", b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n"])
def test_a_connection_without_a_complete_request_is_closed(server: Running, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.ports["http"]), timeout=20) as connection:
        started = time.monotonic()
        connection.sendall(sent)
        received = connection.recv(1000)
        assert 0.5 < time.monotonic() - started < 5
    assert received == b"" if not sent else received.startswith(b"HTTP/1.1 408")


def test_a_trickle_of_headers_does_not_hold_a_connection(server: Running) -> None:
    with socket.create_connection(("127.0.0.1", server.ports["http"]), timeout=20) as connection:
        started = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - started < 10:
                connection.sendall(b"a")
                time.sleep(0.02)
        assert time.monotonic() - started < 5


def test_a_connection_serves_several_requests(server: Running) -> None:
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\n"
    with socket.create_connection(("127.0.0.1", server.ports["http"]), timeout=20) as connection:
        for grey in (10, 200):
            image = photo(grey)
            connection.sendall(head + b"content-length: %d\r\n\r\n" % len(image) + image)
            received = b""
            while not received.endswith(b"}\n"):
                received += connection.recv(65536)
            assert b'"decision": "%b"' % (b"none" if grey == 10 else b"Roadwork") in received

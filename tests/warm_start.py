"""Training processes that are forked from one with torch imported, in a fraction of a second.

A step starts torchrun, and torchrun its ranks; each imports torch and transformers anew, about six
seconds for a training on one process. `WarmStarts` replaces both starts by forks of a server that
has imported them. What a test can observe stays: separate processes, the step as torchrun's parent
and torchrun as the ranks', signals, exit codes, environment, output. A fresh interpreter, with a
hash seed of its own, does not stay: fixtures of a session or a module start cold, and so do the
tests of launching itself and all that are slow.
"""

import atexit
import contextlib
import ctypes
import importlib
import json
import os
import random
import runpy
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

_ENTRY_POINTS = (
    "components.pretrain_explora.train",
    "components.pretrain_explora.verify",
    "components.extract_features.extract",
    "components.predict_logits.predict",
    "components.train_baseline.train",
    "components.train_gate.train",
    "components.shared.training.launch.agent",
    "tests.components.shared.training.toy",
)
_LAZY = ("torch._dynamo", "transformers.models.dinov2.modeling_dinov2", "peft.tuners.lora")
# What may differ from one start to the next without a module having read it on import, on a CPU.
_PER_START = ("STREETVISION_", "PYTEST_", "PYTORCH_ALLOC_CONF", "TOKENIZERS_PARALLELISM")
_ROOT = str(Path(__file__).resolve().parents[1])
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_LARGEST_REQUEST = 1 << 17


Fork = Callable[[list[str], dict[str, str]], int]


class _Forked(subprocess.Popen[bytes]):
    """A child process, started by a function that returns its number."""

    def __init__(self, command: list[str], environment: dict[str, str], fork: Fork) -> None:
        self._start = lambda: fork(command, environment)
        super().__init__(command)

    def _execute_child(self, *_: Any) -> None:
        self.pid = self._start()
        self._child_created = True


class _Server:
    """The process that forks, from the side of the tests."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = _constant(environment)
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.warm_start", str(theirs.fileno())],
                env=environment,
                cwd=_ROOT,
                pass_fds=[theirs.fileno()],
            )

    def fits(self, environment: dict[str, str]) -> bool:
        """Return whether what was imported would be the same under `environment`."""
        return _constant(environment) == self._environment

    def fork(
        self, command: list[str], environment: dict[str, str], cwd: Path, fds: list[int]
    ) -> int:
        """Return the number of a new process; its parent is this one."""
        request = {"command": command, "environment": environment, "cwd": str(cwd)}
        with _adopting():
            socket.send_fds(self._connection, [json.dumps(request).encode()], fds)
            return int(self._connection.recv(_LARGEST_REQUEST))

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.wait()


def _constant(environment: dict[str, str]) -> dict[str, str]:
    kept = {k: v for k, v in environment.items() if not k.startswith(_PER_START)}
    folders = kept.pop("PYTHONPATH", "").split(os.pathsep)
    return kept | {"PYTHONPATH": os.pathsep.join(f for f in folders if f not in ("", _ROOT))}


@contextlib.contextmanager
def _adopting() -> Iterator[None]:
    """Make this process the parent of descendants whose parent ends (PR_SET_CHILD_SUBREAPER)."""
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0)


class WarmStarts:
    """Starts of modules as forks of a server, which is started with the first one."""

    def __init__(self) -> None:
        self._server: _Server | None = None

    def popen(self, command: list[str], env: dict[str, str]) -> "subprocess.Popen[bytes]":
        """Start `python -m module ...`; cold where an import could have read a changed variable."""
        server = self._server_for(env)
        if server is None:
            return subprocess.Popen(command, env=env)
        return _Forked(command, env, lambda c, e: server.fork(c, e, Path.cwd(), [0, 1, 2]))

    def run(
        self, command: list[str], *, cwd: Path, **options: Any
    ) -> "subprocess.CompletedProcess[str]":
        """Run `python -m module ...` to its end with its output captured as text."""
        assert options == {"capture_output": True, "text": True, "check": False}
        environment = dict(os.environ)
        server = self._server_for(environment)
        if server is None:
            return subprocess.run(command, cwd=cwd, check=False, capture_output=True, text=True)
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as error:
            fds = [0, out.fileno(), error.fileno()]
            code = _Forked(command, environment, lambda c, e: server.fork(c, e, cwd, fds)).wait()
            for stream in (out, error):
                stream.seek(0)
            return subprocess.CompletedProcess(command, code, out.read(), error.read())

    @property
    def module(self) -> SimpleNamespace:
        """Stand in for the module `subprocess`."""
        return SimpleNamespace(Popen=self.popen, run=self.run)

    def close(self) -> None:
        """End the server."""
        if self._server is not None:
            self._server.close()

    def _server_for(self, environment: dict[str, str]) -> _Server | None:
        self._server = self._server or _Server(environment)
        return self._server if self._server.fits(environment) else None


def _serve(connection: socket.socket) -> None:
    """Fork for every request; end with the connection."""
    for module in (*_LAZY, *_ENTRY_POINTS):
        importlib.import_module(module)
    while True:
        message, fds, _, _ = socket.recv_fds(connection, _LARGEST_REQUEST, 3)
        if not message:
            return
        reading, writing = os.pipe()
        middle = os.fork()
        if middle == 0:
            # Asked before the fork: the one in the middle may end before its child looks.
            parent = os.getpid()
            number = os.fork()
            if number == 0:
                connection.close()
                _become(json.loads(message), fds, parent)
            os.write(writing, str(number).encode())
            os._exit(0)
        # Once the one in the middle has ended, the new process belongs to the tests.
        os.waitpid(middle, 0)
        connection.send(os.read(reading, 32))
        for descriptor in (reading, writing, *fds):
            os.close(descriptor)


def _become(request: dict[str, Any], fds: list[int], middle: int) -> NoReturn:
    while os.getppid() == middle:
        time.sleep(0.0005)
    for target, descriptor in enumerate(fds):
        os.dup2(descriptor, target)
    os.chdir(request["cwd"])
    handler = importlib.import_module(
        "torch.distributed.elastic.multiprocessing.subprocess_handler.subprocess_handler"
    ).SubprocessHandler
    handler._popen = lambda self, args, env: _Forked(list(args), env, _fork_rank)
    code = _run(request["command"], request["environment"])
    # The interpreter's own end takes a second, for modules that this process never used.
    atexit._run_exitfuncs()
    os._exit(code)


def _fork_rank(command: list[str], environment: dict[str, str]) -> int:
    number = os.fork()
    if number == 0:
        os.setsid()
        os._exit(_run(command, environment))
    return number


def _run(command: list[str], environment: dict[str, str]) -> int:
    """Run `python [-u] -m module arguments...` in this process and return its exit code."""
    os.environ.clear()
    os.environ.update(environment)
    random.seed()
    importlib.import_module("numpy").random.seed()
    start = command.index("-m") + 1
    module, sys.argv = command[start], command[start:]
    for name in sys.argv:  # also of a module that runs another
        sys.modules.pop(name, None)
    code: object = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else int(code is not None)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))

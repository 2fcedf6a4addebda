"""A server of the process's own for tests: a fake engine behind the real HTTP, gRPC and batches.

The fake stands for `OnnxPredictor`: its probability is the mean of the pixels over 255, so that an
answer shows which image it belongs to. That the real engine fits is checked by
tests/components/shared/serving/server/test_command.py.
"""

import asyncio
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from PIL import Image

from components.shared.contracts.outcomes import DEFER
from components.shared.serving.answer import Answer
from components.shared.serving.server.batching import Pixels
from components.shared.serving.server.deployment import Deployment, Loaded
from components.shared.serving.server.limits import Limits
from components.shared.serving.server.process import Address, Server
from components.shared.serving.stage2 import Stage2
from pipelines.sources import ROOT

SIZE = 8
NAMES = ("none", "Roadwork")


@dataclass
class FakeEngine:
    """Answers by the mean of the pixels: below 0.4 none, above 0.6 Roadwork, between them defer.

    seconds: of a batch. batches: their sizes. gate: clear it, and a batch waits.
    """

    seconds: float = 0.0
    batches: list[int] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    def answers(self, pixels: Pixels) -> list[Answer]:
        """Return one answer per image of (B, S, S, 3) uint8."""
        self.gate.wait()
        time.sleep(self.seconds)
        self.batches.append(len(pixels))
        return [_answer(float(image.mean() / 255)) for image in pixels]


def _answer(probability: float) -> Answer:
    decision = DEFER if 0.4 <= probability <= 0.6 else NAMES[probability > 0.6]
    return Answer(decision, probability, 0.6)


def loaded(engine: FakeEngine | None = None, digest: str = "a" * 64, **fields: Any) -> Loaded:
    """Return the fake as a loaded bundle."""
    return Loaded(
        engine=engine or FakeEngine(),
        outcomes=NAMES,
        image_size=SIZE,
        digest=digest,
        form="onnx",
        **fields,
    )


def photo(grey: int, kind: str = "PNG", size: int = 16) -> bytes:
    """Return an encoded image of one grey, whose probability is grey / 255."""
    stream = io.BytesIO()
    Image.new("RGB", (size, size), (grey, grey, grey)).save(stream, kind)
    return stream.getvalue()


class Running:
    """A server in a thread. ports: "http" and "grpc"."""

    def __init__(self, loaded: Loaded, limits: Limits, stage2: Stage2 | None = None) -> None:
        self.loop, self._closing = asyncio.new_event_loop(), threading.Lock()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.server: Server = self.call(_server(loaded, limits, stage2))
        self.ports: dict[str, int] = self.call(self.server.start())

    @property
    def deployment(self) -> Deployment:
        """What answers."""
        return self.server.deployment

    def call(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    @property
    def url(self) -> str:
        """Address of HTTP."""
        return f"http://127.0.0.1:{self.ports['http']}"

    def close(self) -> None:
        """Stop as SIGTERM does; a second time does nothing."""
        if self.loop.is_closed() or not self._thread.is_alive():
            return
        with self._closing:
            self._close()

    def _close(self) -> None:
        if self.loop.is_closed():
            return
        self.call(self.server.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


async def _server(loaded: Loaded, limits: Limits, stage2: Stage2 | None) -> Server:
    address = Address(host="127.0.0.1", port=0, grpc_port=0)
    return Server(Deployment(loaded, limits, stage2), address, "streetvision")


@contextlib.contextmanager
def running(
    bundle: Loaded | None = None, stage2: Stage2 | None = None, **limits: Any
) -> Iterator[Running]:
    """Run a server with these limits, of the fake where no bundle is given."""
    found = Running(bundle or loaded(), Limits(**limits), stage2)
    try:
        yield found
    finally:
        found.close()


class Process:
    """`python -m components.shared.serving.server` on free ports.

    said: the line that it prints when it can answer.
    """

    def __init__(self, *arguments: object, env: Mapping[str, str] | None = None) -> None:
        words = ["--host", "127.0.0.1", "--port", "0", "--grpc-port", "0", *map(str, arguments)]
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed in __exit__
        self._process = subprocess.Popen(
            [sys.executable, "-m", "components.shared.serving.server", *words],
            cwd=ROOT,
            env=os.environ | dict(env or {}),
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self.errors()
        self.said: dict[str, Any] = json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.end()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()

    @property
    def url(self) -> str:
        """Address of HTTP."""
        return f"http://127.0.0.1:{self.said['http']}"

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def end(self) -> int:
        """Send SIGTERM and return the exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(60)

    def errors(self) -> str:
        """What it has written to stderr."""
        self._errors.seek(0)
        return self._errors.read()

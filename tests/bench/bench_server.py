"""Throughput, latency and memory of the server against transformers' pipeline behind FastAPI.

Both serve the bundle of `served_bundle`, the server each of its forms; all are asked over HTTP by a
process of its own, for JPEG files of 1280 x 720, by 1, 4 and 16 clients at a time, in turns. Every
answer must be 200 and the decision of the form.

KServe's Hugging Face server is no peer: its tasks (`MLTask` of huggingfaceserver/task.py in the
sources of KServe) are those of texts, tables, embeddings and time
series, and image classification is not among them.
"""

import contextlib
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from components.shared.contracts.formats import ONNX
from components.shared.serving.bundle import MODEL, open_bundle
from components.shared.serving.formats.onnx_predictor import OnnxPredictor
from pipelines.sources import ROOT
from tests.bench.measure import Result
from tests.bench.photographs import photographs
from tests.bench.served_bundle import write_bundle
from tests.bench.server_load import Load, finish_load, start_load
from tests.serving_server import Process

_N_IMAGES = 8
_CLIENTS = (1, 4, 16)
_SECONDS, _ROUNDS = 10.0, 3
_GOAL = 3.0
_PEER = "peer"
_Decisions = dict[int, list[str]]  # by the number of the image


@dataclass(frozen=True)
class _Server:
    """A server that runs: its port and its process."""

    port: int
    pid: int

    def megabytes(self) -> float:
        """Largest resident memory so far (VmHWM)."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1024

    def cpu_seconds(self) -> float:
        """Seconds of all its threads, in the program and the kernel, since its start."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2]
        return sum(map(int, fields.split()[11:13])) / os.sysconf("SC_CLK_TCK")


def run() -> Iterator[Result]:
    """For each number of clients and each form: seconds per image, ours and the peer's."""
    with tempfile.TemporaryDirectory() as folder, photographs(_N_IMAGES) as images:
        bundle = open_bundle(write_bundle(Path(folder)))
        expected = {form: _decisions(OnnxPredictor(bundle, form), images) for form in bundle.forms}
        for clients in _CLIENTS:
            yield from _compared(bundle.path, images, expected, clients)


def _decisions(predictor: OnnxPredictor, images: list[Path]) -> _Decisions:
    answers = [predictor.answers(predictor.pixels(file.read_bytes())[None])[0] for file in images]
    return {number: [str(answer.decision)] for number, answer in enumerate(answers)}


def _compared(
    bundle: Path, images: list[Path], expected: dict[str, _Decisions], clients: int
) -> Iterator[Result]:
    servers = {form: partial(_ours, bundle, form) for form in expected} | {
        _PEER: partial(_peer, bundle)
    }
    best: dict[str, Load] = {}
    notes = {}
    for name in [*servers] * _ROUNDS:
        with servers[name]() as server:
            finish_load(start_load(server.port, clients, 2, images))  # warm
            before = server.cpu_seconds()
            load = finish_load(start_load(server.port, clients, _SECONDS, images))
            cpu = (server.cpu_seconds() - before) / len(load.latencies)
            memory = server.megabytes()
        assert load.statuses.keys() == {"200"}, (name, load.statuses)
        right = expected.get(name, expected[ONNX])  # the peer computes what onnx computes
        assert load.decisions == {image: right[image] for image in load.decisions}, name

        if name not in best or load.images_per_second > best[name].images_per_second:
            best[name] = load
            notes[name] = (
                f"{name} {load.images_per_second:.1f} images/s, p50 {load.milliseconds(0.5):.0f}"
                f" ms, p99 {load.milliseconds(0.99):.0f} ms, {memory:.0f} MB,"
                f" {cpu * 1000:.0f} ms of a core per image"
            )

    for form in expected:
        yield Result(
            f"server, {form}, {clients} clients",
            "transformers' pipeline behind FastAPI",
            1 / best[form].images_per_second,
            1 / best[_PEER].images_per_second,
            goal=_GOAL,
            note=f"{notes[form]}; {notes[_PEER]}",
        )


@contextlib.contextmanager
def _ours(bundle: Path, form: str) -> Iterator[_Server]:
    with Process(bundle, "--form", form) as process:
        yield _Server(process.said["http"], process.pid)


@contextlib.contextmanager
def _peer(bundle: Path) -> Iterator[_Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["-m", "tests.bench.pipeline_server", str(bundle / MODEL), str(port)]
    process = subprocess.Popen([sys.executable, *words], cwd=ROOT)
    try:
        _wait(lambda: _is_ready(port))
        yield _Server(port, process.pid)
    finally:
        process.terminate()
        process.wait()


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def _wait(is_ready: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not is_ready():
        assert time.monotonic() < deadline, "the server did not start"
        time.sleep(0.2)

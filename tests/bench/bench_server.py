"""Throughput, latency and memory of the server against transformers' pipeline behind FastAPI.

Both serve the same bundle, a DINOv2-small of 224 pixels with random weights, which do not change
the work; both are asked over HTTP by a process of its own, for JPEG files of 1280 x 720, by 1, 4
and 16 clients at a time, in turns. Every answer must be 200 and the decision of the bundle.

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
from pathlib import Path

from transformers import Dinov2Config

from components.shared.serving.bundle import MODEL, open_bundle
from components.shared.serving.formats.onnx_predictor import OnnxPredictor
from pipelines.sources import ROOT
from tests import bundles
from tests.bench.measure import Result
from tests.bench.photographs import photographs
from tests.bench.server_load import Load, finish_load, start_load
from tests.serving_server import Process

_SIZE, _N_IMAGES = 224, 8
_CLIENTS = (1, 4, 16)
_SECONDS, _ROUNDS = 10.0, 3
_GOAL = 3.0
_SMALL = Dinov2Config(
    hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=_SIZE, patch_size=14
)


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


def run() -> list[Result]:
    """One result for each number of clients: seconds per image, ours and the peer's."""
    with tempfile.TemporaryDirectory() as folder, photographs(_N_IMAGES) as images:
        bundle = write_bundle(Path(folder))
        expected = _decisions(bundle, images)
        return [_compared(bundle, images, expected, clients) for clients in _CLIENTS]


def write_bundle(folder: Path) -> Path:
    """Write a bundle of a DINOv2-small with the form onnx."""
    size, config = bundles.SIZE, bundles.CONFIGS["dinov2"]
    bundles.SIZE, bundles.CONFIGS["dinov2"] = _SIZE, _SMALL
    try:
        plain = bundles.make_inputs(folder / "inputs").export(folder / "plain")
    finally:
        bundles.SIZE, bundles.CONFIGS["dinov2"] = size, config
    return bundles.with_onnx(plain, folder / "bundle")


def _decisions(bundle: Path, images: list[Path]) -> dict[int, list[str]]:
    predictor = OnnxPredictor(open_bundle(bundle))
    answers = [predictor.answers(predictor.pixels(file.read_bytes())[None])[0] for file in images]
    return {number: [str(answer.decision)] for number, answer in enumerate(answers)}


def _compared(
    bundle: Path, images: list[Path], expected: dict[int, list[str]], clients: int
) -> Result:
    loads: dict[str, list[Load]] = {"ours": [], "peer": []}
    memory, cpu = {}, {}
    for _ in range(_ROUNDS):
        for name, started in (("ours", _ours), ("peer", _peer)):
            with started(bundle) as server:
                finish_load(start_load(server.port, clients, 2, images))  # warm
                before = server.cpu_seconds()
                load = finish_load(start_load(server.port, clients, _SECONDS, images))
                cpu[name] = (server.cpu_seconds() - before) / len(load.latencies)
                memory[name] = server.megabytes()
            assert load.statuses.keys() == {"200"}, (name, load.statuses)
            assert load.decisions == {image: expected[image] for image in load.decisions}, name
            loads[name].append(load)

    ours, peer = (max(loads[name], key=lambda load: load.images_per_second) for name in loads)
    note = "; ".join(
        f"{name} {load.images_per_second:.1f} images/s, p50 {load.milliseconds(0.5):.0f} ms,"
        f" p99 {load.milliseconds(0.99):.0f} ms, {memory[name]:.0f} MB,"
        f" {cpu[name] * 1000:.0f} ms of a core per image"
        for name, load in (("ours", ours), ("peer", peer))
    )
    return Result(
        f"server, {clients} clients",
        "transformers' pipeline behind FastAPI",
        1 / ours.images_per_second,
        1 / peer.images_per_second,
        goal=_GOAL,
        note=note,
    )


@contextlib.contextmanager
def _ours(bundle: Path) -> Iterator[_Server]:
    with Process(bundle) as process:
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

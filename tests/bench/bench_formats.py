"""Latency of a bundle's further forms against PyTorch and Hugging Face Optimum's export.

The bundle is that of `served_bundle`; one thread, one image and eight at a time, from pixels in
memory. Milliseconds are processor time of
that thread, which other processes on the machine do not add to. PyTorch runs the bundle's model in
fp32, eagerly, on a normalised input. Every form must decide each image by its policy.

Optimum's exporter needs transformers before 4.58, so its packages are installed into a folder of
their own, by the hashes of optimum.txt.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from transformers import PreTrainedModel

from components.shared.contracts.formats import ONNX, ONNX_INT8
from components.shared.serving.bundle import MODEL, Bundle, open_bundle
from components.shared.serving.formats.onnx_format import MODEL as GRAPH
from components.shared.serving.formats.onnx_predictor import OnnxPredictor
from components.shared.serving.predictor import Predictor, load_stock
from tests.bench.measure import Result, interleaved
from tests.bench.served_bundle import noise, write_bundle

WEIGHTS = "model.safetensors"
_BATCHES, _ROUNDS = (1, 8), 15
_GOALS = {ONNX: 1.3, ONNX_INT8: 2.5}  # of PyTorch's speed; the second on a CPU with VNNI
_OPTIMUM = Path(__file__).with_name("optimum.txt")
_EXPORT = (
    "import sys; from optimum.exporters.onnx import main_export;"
    " main_export(sys.argv[1], sys.argv[2], task='image-classification', do_validation=False)"
)
_ERRORS_ONLY = 3  # onnxruntime's level of messages
_Pixels = npt.NDArray[np.uint8]


def run() -> Iterator[Result]:
    """For each form and size of a batch one result against PyTorch, and one against Optimum."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            bundle = open_bundle(write_bundle(Path(folder)))
            graph = optimum_export(bundle.path / MODEL, Path(folder))
            yield from compared(bundle, graph)
    finally:
        torch.set_num_threads(before)


def compared(bundle: Bundle, optimum: Path) -> Iterator[Result]:
    """Compare every form of a bundle of one view, which transformers can load, with both peers."""
    own = Predictor(bundle)
    model = load_stock(bundle.path / MODEL, MODEL, len(bundle.spec.class_names))
    session = _session(optimum)
    for form in bundle.forms:
        predictor = OnnxPredictor(bundle, form, threads=1)
        megabytes = _megabytes(bundle.path / form / GRAPH)
        note = f"{megabytes:.0f} MB, PyTorch {_megabytes(bundle.path / MODEL / WEIGHTS):.0f} MB"
        for n_images in _BATCHES:
            pixels = noise(n_images)
            inputs = own.inputs(pixels)
            _check(predictor, own, pixels)
            peers: dict[str, tuple[Callable[[], object], float]] = {
                "PyTorch, eager fp32": (partial(_eager, model, inputs), _GOALS[form]),
                "Optimum's export": (partial(_exported, session, inputs.numpy()), 1.0),
            }
            for peer, (call, goal) in peers.items():
                seconds = interleaved(
                    partial(predictor.outputs, pixels),
                    call,
                    rounds=_ROUNDS,
                    clock=time.thread_time,
                )
                yield Result(f"{form}, {n_images} at a time", peer, *seconds, goal=goal, note=note)


def optimum_export(model: Path, folder: Path) -> Path:
    """Return the graph that Optimum makes of a folder of transformers."""
    packages, target = folder / "optimum-packages", folder / "optimum"
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
    subprocess.run(
        [sys.executable, *install, "--target", str(packages), "--requirement", str(_OPTIMUM)],
        check=True,
    )
    subprocess.run(
        [sys.executable, "-c", _EXPORT, str(model), str(target)],
        env=os.environ | {"PYTHONPATH": str(packages), "HF_HUB_OFFLINE": "1"},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return target / "model.onnx"


def _check(predictor: OnnxPredictor, own: Predictor, pixels: _Pixels) -> None:
    """Assert that the form decides as its policy does, and a float one as the bundle's model."""
    found = [answer.decision for answer in predictor.answers(pixels)]
    policy, outputs = predictor.policy, predictor.outputs(pixels)
    codes = policy.decision(outputs.logits.astype(np.float64))
    assert found == [policy.outcomes.names[code] for code in codes], found
    if predictor.form == ONNX:
        assert found == [answer.decision for answer in own.answers(pixels)], found


def _eager(model: PreTrainedModel, inputs: torch.Tensor) -> object:
    with torch.inference_mode():
        return model(pixel_values=inputs).logits


def _exported(session: onnxruntime.InferenceSession, inputs: npt.NDArray[np.float32]) -> object:
    return session.run(None, {"pixel_values": inputs})


def _session(graph: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _megabytes(file: Path) -> float:
    return file.stat().st_size / 1e6

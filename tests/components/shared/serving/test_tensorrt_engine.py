"""What is asked of TensorRT, and what is refused; no TensorRT has run here.

`FakeTensorrt` stands for the package: it records what is asked of it up to the building of an
engine, and builds a text. `_on_cpu` stands for the engine on a GPU: onnxruntime gives its outputs.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from components.shared.contracts.artifacts import read_manifest
from components.shared.contracts.errors import ArtifactError, ConfigError, PermanentError
from components.shared.serving import tensorrt_engine
from components.shared.serving.bundle import open_bundle
from components.shared.serving.formats.onnx_predictor import OnnxPredictor
from components.shared.serving.tensorrt_engine import (
    check_outputs,
    load_tensorrt,
    run_engine,
    write_engines,
)
from components.shared.vision.reference_image import reference_image
from tests.bundles import SIZE, edit_json, noise, onnx_bundle, resigned

_Arrays = dict[str, np.ndarray]


class FakeTensorrt:
    """The package tensorrt as far as `build_engine` uses it; it records calls in order."""

    __version__ = "10.0.0"
    BuilderFlag = SimpleNamespace(TF32="TF32")

    def __init__(self, *, errors: tuple[str, ...] = (), plan: bytes | None = b"engine") -> None:
        self.errors, self.plan = errors, plan
        self.calls: list[tuple[Any, ...]] = []
        self.graph: onnx.GraphProto | None = None

    class Logger:
        ERROR = 1

        def __init__(self, severity: int) -> None:
            assert severity == self.ERROR

    def Builder(self, logger: Logger) -> "FakeTensorrt":  # noqa: N802 - its name there
        return self

    def create_network(self, flags: int) -> "FakeTensorrt":
        return self

    def OnnxParser(self, network: Any, logger: Logger) -> "FakeTensorrt":  # noqa: N802
        return self

    def parse_from_file(self, path: str) -> bool:
        self.graph = onnx.load(path).graph
        self.calls.append(("parse", Path(path).name))
        return not self.errors

    @property
    def num_errors(self) -> int:
        return len(self.errors)

    def get_error(self, number: int) -> Any:
        return SimpleNamespace(desc=lambda: self.errors[number])

    def create_builder_config(self) -> "FakeTensorrt":
        return self

    def clear_flag(self, flag: str) -> None:
        self.calls.append(("clear", flag))

    def create_optimization_profile(self) -> "FakeTensorrt":
        return self

    @property
    def num_inputs(self) -> int:
        assert self.graph is not None
        return len(self.graph.input)

    def get_input(self, number: int) -> Any:
        assert self.graph is not None
        given = self.graph.input[number]
        axes = [axis.dim_value or -1 for axis in given.type.tensor_type.shape.dim]
        return SimpleNamespace(name=given.name, shape=axes)

    def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
        self.calls.append(("shape", name, shapes))

    def add_optimization_profile(self, profile: Any) -> None:
        self.calls.append(("profile",))

    def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
        self.calls.append(("build",))
        return self.plan


class _FakeRuntime(FakeTensorrt):
    """The package as far as `run_engine` uses it, one of whose calls fails as TensorRT's do."""

    num_io_tensors = 1

    def __init__(self, failing: str) -> None:
        super().__init__()
        self.failing = failing

    def Runtime(self, logger: Any) -> "_FakeRuntime":  # noqa: N802 - its name there
        return self

    def deserialize_cuda_engine(self, plan: bytes) -> "_FakeRuntime | None":
        return None if self.failing == "deserialize_cuda_engine" else self

    def create_execution_context(self) -> "_FakeRuntime | None":
        return None if self.failing == "create_execution_context" else self

    def get_tensor_name(self, number: int) -> str:
        return "images"

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        return True

    def execute_async_v3(self, stream: int) -> bool:
        return self.failing != "execute_async_v3"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return onnx_bundle(tmp_path_factory)


def _on_cpu(bundle: Path, **changes: Any) -> Any:
    """Return what stands for `run_engine`: outputs of onnxruntime, some of them replaced."""
    predictor = OnnxPredictor(open_bundle(bundle), threads=1)

    def outputs(trt: Any, plan: Path, given: _Arrays) -> _Arrays:
        assert plan.read_bytes() == b"engine"
        (found,) = predictor.raw_outputs(given["images"])
        return found | {name: change(found[name]) for name, change in changes.items()}

    return outputs


def _write(bundle: Path, folder: Path, trt: FakeTensorrt | None = None) -> list[str]:
    return write_engines(trt or FakeTensorrt(), open_bundle(bundle), folder)


@pytest.fixture
def gpu(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_engine, "run_engine", _on_cpu(path))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")


def test_an_engine_takes_1_to_32_images_in_float32(path: Path, tmp_path: Path, gpu: None) -> None:
    trt = FakeTensorrt()
    assert _write(path, tmp_path / "engines", trt) == ["model.plan"]
    shapes = tuple((n_images, SIZE, SIZE, 3) for n_images in (1, 8, 32))
    assert trt.calls == [
        ("parse", "model.onnx"),
        ("clear", "TF32"),
        ("shape", "images", shapes),
        ("profile",),
        ("build",),
    ]
    document = json.loads((tmp_path / "engines/engine.json").read_text())
    assert document.pop("largest_difference") < 1e-3
    assert document == {
        "bundle": read_manifest(path).content_digest,
        "tensorrt": "10.0.0",
        "gpu": "a GPU",
        "most_images": 32,
    }
    form = (path / "onnx/format.json").read_bytes()
    assert (tmp_path / "engines/format.json").read_bytes() == form


@pytest.mark.parametrize(
    ("trt", "message"),
    [
        (FakeTensorrt(errors=("no importer for Foo",)), r"cannot parse it \(no importer for Foo\)"),
        (FakeTensorrt(plan=None), "built no engine of it"),
    ],
)
def test_what_tensorrt_cannot_build_is_refused_with_its_words(
    trt: FakeTensorrt, message: str, path: Path, tmp_path: Path, gpu: None
) -> None:
    with pytest.raises(PermanentError, match=rf"onnx/model.onnx: TensorRT 10.0.0 {message}"):
        _write(path, tmp_path / "engines", trt)


@pytest.mark.parametrize(
    ("output", "change", "message"),
    [
        ("logits", lambda values: values + 0.1, "logits of the reference image differs by"),
        ("logits", lambda values: values * np.nan, "logits of the reference image differs by nan"),
        ("margin", lambda values: values + 0.1, "margin of the reference image differs by"),
        ("decision", lambda values: 1 - values, "decision of the reference image is"),
    ],
)
def test_an_engine_that_answers_otherwise_is_refused(
    output: str,
    change: Any,
    message: str,
    path: Path,
    tmp_path: Path,
    gpu: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tensorrt_engine, "run_engine", _on_cpu(path, **{output: change}))
    with pytest.raises(PermanentError, match=rf"model.plan: {message}.* computes another model"):
        _write(path, tmp_path / "engines")


@pytest.mark.parametrize(
    ("failing", "message"),
    [
        ("deserialize_cuda_engine", "cannot load it"),
        ("create_execution_context", "cannot make a context to run it"),
        ("execute_async_v3", "could not run it"),
    ],
)
def test_an_engine_that_does_not_run_is_refused_with_plan_and_version(
    failing: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = SimpleNamespace(cuda_stream=0, synchronize=lambda: None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor: tensor)
    (tmp_path / "tiles.plan").write_bytes(b"engine")
    given = {"images": noise(1)}
    with pytest.raises(PermanentError, match=rf"^tiles\.plan: TensorRT 10\.0\.0 {message}"):
        run_engine(_FakeRuntime(failing), tmp_path / "tiles.plan", given)


def test_the_stored_outputs_count_also_where_onnxruntime_agrees(path: Path) -> None:
    bundle = open_bundle(path)
    outputs = OnnxPredictor(bundle, threads=1).raw_outputs(reference_image(SIZE))
    others = replace(bundle, reference_logits=(outputs[0]["logits"][0] + 0.1).tolist())
    assert check_outputs(bundle, outputs, outputs, ["model.plan"]) < 1e-3
    with pytest.raises(PermanentError, match=r"model\.plan: logits of the reference image differs"):
        check_outputs(others, outputs, outputs, ["model.plan"])


def test_a_bundle_without_stored_outputs_is_refused(path: Path, tmp_path: Path, gpu: None) -> None:
    bundle = resigned(
        path, tmp_path / "bundle", lambda out: edit_json(out / "bundle.json", reference_logits=None)
    )
    with pytest.raises(ArtifactError, match="has no reference_logits to compare with"):
        _write(bundle, tmp_path / "engines")


def test_without_the_package_or_a_gpu_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(ConfigError, match="the package tensorrt is not installed"):
        load_tensorrt()
    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorrt())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="no GPU is visible"):
        load_tensorrt()

"""Graphs of a stranger are refused in one line, and nothing outside of their folder is opened.

The sums of these bundles fit. What lies outside is a named pipe: opening it to read would wait for
a writer, and the test would hang or find the reader.
"""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from components.shared.contracts.errors import ArtifactError
from components.shared.serving.bundle import open_bundle
from components.shared.serving.formats.onnx_predictor import OnnxPredictor
from tests.bundles import SIZE, onnx_bundle, resigned

Build = Callable[[str], onnx.GraphProto]
IMAGES = helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", SIZE, SIZE, 3])
MARGIN = helper.make_tensor_value_info("margin", TensorProto.FLOAT, [4])


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return onnx_bundle(tmp_path_factory)


def _outside(location: str, name: str = "weight") -> TensorProto:
    """Four numbers whose bytes lie in another file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def _initializer(location: str) -> onnx.GraphProto:
    node = helper.make_node("Identity", ["weight"], ["margin"])
    return helper.make_graph([node], "graph", [IMAGES], [MARGIN], [_outside(location)])


def _constant(location: str) -> onnx.GraphProto:
    node = helper.make_node("Constant", [], ["margin"], value=_outside(location))
    return helper.make_graph([node], "graph", [IMAGES], [MARGIN])


def _branch(location: str) -> onnx.GraphProto:
    """Initializers of graphs inside a node."""

    def branch(name: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, [4])
        node = helper.make_node("Identity", [name], [f"{name}_out"])
        return helper.make_graph([node], name, [], [out], [_outside(location, name)])

    node = helper.make_node(
        "If", ["yes"], ["margin"], then_branch=branch("then"), else_branch=branch("else")
    )
    yes = numpy_helper.from_array(np.array(True), "yes")
    return helper.make_graph([node], "graph", [IMAGES], [MARGIN], [yes])


@pytest.mark.parametrize("build", [_initializer, _constant, _branch])
@pytest.mark.parametrize("is_absolute", [True, False])
def test_weights_outside_are_refused_and_not_opened(
    build: Build, is_absolute: bool, path: Path, tmp_path: Path
) -> None:
    pipe = tmp_path / "outside"
    os.mkfifo(pipe)
    location = str(pipe) if is_absolute else "../../outside"
    other = _with_graph(path, tmp_path / "other", build(location))
    assert (other / "onnx" / location).resolve() == pipe.resolve()

    _refused(other)
    with pytest.raises(OSError, match="No such device") as caught:  # nobody reads
        os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    assert caught.value.errno == errno.ENXIO


def test_an_operator_of_nobody_is_refused(path: Path, tmp_path: Path) -> None:
    node = helper.make_node("Run", ["images"], ["margin"], domain="example.stranger")
    graph = helper.make_graph([node], "graph", [IMAGES], [MARGIN])
    _refused(_with_graph(path, tmp_path / "other", graph, "example.stranger"), "example.stranger")


def _with_graph(path: Path, other: Path, graph: onnx.GraphProto, domain: str = "") -> Path:
    """Write the bundle with another graph and the sums of it."""
    versions = {"": 20, domain: 1} if domain else {"": 20}
    opsets = [helper.make_opsetid(name, version) for name, version in versions.items()]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    data = model.SerializeToString()
    return resigned(path, other, lambda out: (out / "onnx/model.onnx").write_bytes(data))


def _refused(bundle: Path, *words: str) -> None:
    opened = open_bundle(bundle)
    with pytest.raises(ArtifactError, match=r"onnx/model.onnx: onnxruntime refuses it") as caught:
        OnnxPredictor(opened, threads=1)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words)

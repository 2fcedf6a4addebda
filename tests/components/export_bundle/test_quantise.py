"""Quantised graphs: what stays in float, which weights they hold, and that bytes repeat."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from components.export_bundle import onnx_export
from components.export_bundle.quantise import (
    Inputs,
    layers,
    outputs,
    quantise,
    sensitive_layers,
)
from components.shared.serving.formats.onnx_format import weights_of

WIDTH = 16


def _graph(file: Path, weights: Sequence[npt.NDArray[np.float32]]) -> Path:
    """Write a backbone of products and ReLUs below a head of two logits."""
    nodes, constants, value = [], [], "images"
    for number, weight in enumerate(weights):
        constants.append(numpy_helper.from_array(weight, f"w{number}"))
        product, activated = f"product{number}", f"activated{number}"
        name = f"backbone/layer{number}"
        nodes += [
            helper.make_node("MatMul", [value, f"w{number}"], [product], name),
            helper.make_node("Relu", [product], [activated], f"backbone/relu{number}"),
        ]
        value = activated
    # A product of two activations, as in attention.
    nodes.append(helper.make_node("Transpose", [value], ["turned"], "turn", perm=[1, 0]))
    nodes.append(helper.make_node("MatMul", [value, "turned"], ["alike"], "backbone/alike"))
    nodes.append(helper.make_node("MatMul", ["alike", value], ["mixed"], "backbone/mix"))
    head = np.random.default_rng(9).normal(size=(WIDTH, 2)).astype(np.float32)
    constants.append(numpy_helper.from_array(head, "head"))
    nodes.append(helper.make_node("MatMul", ["mixed", "head"], ["logits"], "head"))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", WIDTH])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 2])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    onnx.save(model, file)
    return file


def _weights(count: int) -> list[npt.NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    return [
        (rng.normal(size=(WIDTH, WIDTH)) / np.sqrt(WIDTH)).astype(np.float32) for _ in range(count)
    ]


def _batches() -> list[Inputs]:
    rng = np.random.default_rng(1)
    return [{"images": rng.normal(size=(4, WIDTH)).astype(np.float32)} for _ in range(3)]


def test_only_products_with_weights_of_the_backbone_are_layers(tmp_path: Path) -> None:
    graph = _graph(tmp_path / "graph.onnx", _weights(2))
    assert layers(graph) == ["backbone/layer0", "backbone/layer1"]


def test_weights_are_of_seven_bits_with_a_scale_for_each_channel(tmp_path: Path) -> None:
    weights = _weights(2)
    weights[0][:, 3] *= 50  # one channel of large weights takes no precision from the others
    graph, target = _graph(tmp_path / "graph.onnx", weights), tmp_path / "int8.onnx"
    quantise(graph, target, tmp_path / "ranges.json", layers(graph), _batches())
    found = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(target).graph.initializer
    }
    stored = [values for values in found.values() if values.shape == (WIDTH, WIDTH)]
    assert [values.dtype for values in stored] == [np.int8, np.int8]
    assert all(np.abs(values.astype(int)).max() in (63, 64) for values in stored)
    assert all((np.abs(values.astype(int)).max(axis=0) >= 63).all() for values in stored)
    assert found["head"].dtype == np.float32
    expected = outputs(graph, _batches())
    assert np.abs(outputs(target, _batches()) - expected).max() < 0.1 * expected.std()


def test_a_second_time_gives_the_same_bytes(tmp_path: Path) -> None:
    graph = _graph(tmp_path / "graph.onnx", _weights(2))
    written = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        quantise(graph, folder / "int8.onnx", folder / "ranges.json", layers(graph), _batches())
        written.append((folder / "int8.onnx").read_bytes())
    assert written[0] == written[1]
    assert str(tmp_path).encode() not in written[0]


def test_without_layers_the_graph_stays_as_it_is(tmp_path: Path) -> None:
    graph = _graph(tmp_path / "graph.onnx", _weights(1))
    quantise(graph, tmp_path / "same.onnx", tmp_path / "ranges.json", [], _batches())
    np.testing.assert_array_equal(
        outputs(tmp_path / "same.onnx", _batches()), outputs(graph, _batches())
    )


def _swept(graph: Path, folder: Path) -> list[int]:
    ranges = folder / "ranges.json"
    quantise(graph, folder / "all.onnx", ranges, layers(graph), _batches())
    return sensitive_layers(graph, ranges, _batches(), folder)


def test_the_layer_that_suffers_most_stays_in_float(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One unit of its input is a thousand times the others, which then have no steps left."""
    weights = _weights(8)
    weights[4][:, 0] = 1000 * np.abs(weights[4][:, 0])
    weights[5][0] /= 1000
    assert _swept(_graph(tmp_path / "graph.onnx", weights), tmp_path) == [5]
    assert "1 of 8 layers stay in float" in capsys.readouterr().out


def test_no_layer_stays_in_float_where_the_error_is_small(tmp_path: Path) -> None:
    """Weights and inputs that 7 and 8 bits hold almost exactly."""
    weights = [np.eye(WIDTH, dtype=np.float32) for _ in range(8)]
    assert _swept(_graph(tmp_path / "graph.onnx", weights), tmp_path) == []


def test_weights_that_lie_beside_their_graph_are_quantised_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, beside = _graph(tmp_path / "graph.onnx", _weights(2)), tmp_path / "beside/graph.onnx"
    quantise(graph, tmp_path / "inside.onnx", tmp_path / "ranges", layers(graph), _batches())

    # It stands for a backbone whose weights exceed what one protobuf message holds.
    monkeypatch.setattr(onnx_export, "_MOST_BYTES", 0)
    beside.parent.mkdir()
    onnx_export.write_model(onnx.load(graph), beside)
    assert weights_of(beside).is_file()
    target = tmp_path / "target.onnx"
    quantise(beside, target, tmp_path / "other ranges", layers(beside), _batches())
    assert np.array_equal(
        outputs(target, _batches()), outputs(tmp_path / "inside.onnx", _batches())
    )

    first = target.read_bytes()
    quantise(beside, target, tmp_path / "other ranges", layers(beside))
    assert target.read_bytes() == first

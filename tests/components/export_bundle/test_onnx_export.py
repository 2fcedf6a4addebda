"""The graphs of a bundle: repeatable bytes without a trace of the machine that wrote them."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from components.export_bundle import onnx_export
from components.export_bundle.onnx_export import OPSET, write_onnx
from components.shared.serving.bundle import open_bundle
from components.shared.serving.formats.onnx_predictor import OnnxPredictor
from pipelines.cli.app import main
from tests.bundles import noise, onnx_bundle, with_onnx


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return onnx_bundle(tmp_path_factory)


def test_a_second_export_gives_the_same_bytes(path: Path, tmp_path: Path) -> None:
    write_onnx(open_bundle(path), tmp_path / "onnx")
    assert {file.name: file.read_bytes() for file in (tmp_path / "onnx").iterdir()} == {
        file.name: file.read_bytes() for file in (path / "onnx").iterdir()
    }


@pytest.mark.slow
def test_weights_beyond_2_gib_lie_beside_their_graph(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "_MOST_BYTES", 0)
    exports = [with_onnx(path.parent / "plain", tmp_path / name) for name in ("first", "second")]
    contents = [
        {file.name: file.read_bytes() for file in (bundle / "onnx").iterdir()} for bundle in exports
    ]
    assert contents[0].keys() == {"format.json", "model.onnx", "model.onnx.data"}
    assert contents[0] == contents[1]
    assert len(contents[0]["model.onnx.data"]) > len(contents[0]["model.onnx"])

    pixels = noise(8)
    (expected,), (found,) = (
        OnnxPredictor(open_bundle(one), threads=1).raw_outputs(pixels) for one in (path, exports[0])
    )
    main(["export", "triton", str(exports[0]), "--output", str(tmp_path / "models")])
    graph = tmp_path / "models/streetvision/1/model.onnx"
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    of_repository = session.run(list(expected), {"images": pixels})
    for number, (name, values) in enumerate(expected.items()):
        np.testing.assert_allclose(found[name], values, atol=1e-5)
        np.testing.assert_allclose(of_repository[number], values, atol=1e-5)


def test_the_graph_says_nothing_about_where_it_was_made(path: Path) -> None:
    file = path / "onnx/model.onnx"
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
    data = file.read_bytes()
    assert b".py" not in data
    assert b"/" + Path.cwd().parts[1].encode() + b"/" not in data


def test_attention_searches_for_no_masked_rows(path: Path) -> None:
    graph = onnx.load(path / "onnx/model.onnx").graph
    assert "Softmax" in {node.op_type for node in graph.node}
    assert "IsNaN" not in {node.op_type for node in graph.node}


def test_the_batch_is_the_only_free_axis(path: Path) -> None:
    graph = onnx.load(path / "onnx/model.onnx").graph
    axes = [axis.dim_param or axis.dim_value for axis in graph.input[0].type.tensor_type.shape.dim]
    assert axes == ["N", 56, 56, 3]
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [output.name for output in graph.output] == [
        "margin",
        "probability",
        "decision",
        "logits",
    ]


def test_pixels_feed_nothing_but_their_conversion_to_float(path: Path) -> None:
    """As TensorRT wants it; test_onnx_graph.py has the graphs of views."""
    graph = onnx.load(path / "onnx/model.onnx").graph
    assert [node.op_type for node in graph.node if "images" in node.input] == ["Cast"]
